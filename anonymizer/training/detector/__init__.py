"""Training of sotto's own detector of personal data: a token classifier cut from multilingual-e5-small."""

//! What `sotto selftest` asks and reads.

/// Ten prompts of different kinds.
pub(super) const PROMPTS: [&str; 10] = [
    "Explain photosynthesis in two sentences.",
    "Write a short poem about the sea in winter.",
    "What is the capital of Australia, and why is it not Sydney?",
    "List five tips for learning a new language.",
    "Write a Python function that reverses a string.",
    "Summarise the plot of Romeo and Juliet for a child.",
    "A train travels 120 kilometres in one and a half hours. What is its average speed?",
    "Translate into French: The library opens at nine in the morning.",
    "Give three arguments for and three against working from home.",
    "Write an email to my landlord about a broken heater.",
];

/// A page of prose, for perplexity.
pub(super) const PROSE: &str = "\
The village lay at the end of a long valley, where the road gave up and turned into a path for goats. In summer the \
people cut hay on the slopes above it and carried it down in large cloth bundles on their heads, and in winter they \
sat in their kitchens and repaired the tools they had broken in summer. There was a church with a wooden tower, a \
school with one room, and a shop that sold flour, nails, sugar and newspapers that were three days old when they \
arrived. Nobody locked a door. The only person who owned a key was the teacher, and she had been given it together \
with the school.

One spring a stranger came up the valley with a theodolite on a mule. He said that he had been sent to measure the \
height of the mountains, because the maps of the ministry did not agree with each other. The farmers listened to him \
politely. They knew how high the mountains were: as high as a man could climb between milking and milking, and then \
some more. But they gave him a room above the shop, and the children carried his red and white poles from one hill to \
the next, and in the evenings he sat outside and wrote numbers into a book with a hard pencil.

He stayed for two summers. By the end of the first he had learned to cut hay, though not well, and by the end of the \
second he had married the teacher. The maps were printed in the capital in the following year. They showed the village \
for the first time, with a small cross for the church, and beside the highest of the mountains there stood a number \
that was exact to the metre. The farmers looked at it for a long time. Then the oldest of them said that it was a good \
map, and that the mountain looked smaller on paper, and went to see after his cows.";

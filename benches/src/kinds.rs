//! Prompts of five kinds, and one whose answer never repeats itself. Written for this bench; nothing was tuned to them.

/// What is asked.
#[derive(Clone, Debug)]
pub struct Kind {
    /// Its name in reports.
    pub name: &'static str,
    /// The message.
    pub prompt: String,
    /// Sampling temperature.
    pub temperature: f32,
    /// Whether it counts towards the mean.
    pub counted: bool,
}

const CODE: &str = "def average(values):\n    total = 0\n    count = 0\n    for value in values:\n        \
    if value is None:\n            continue\n        total = total + value\n        count = count + 1\n    \
    if count == 0:\n        return None\n    return total / count\n\n\ndef largest(values):\n    best = None\n    \
    for value in values:\n        if value is None:\n            continue\n        if best is None or value > best:\n\
    \x20           best = value\n    return best\n";

const PASSAGE: &str = "The lighthouse at Skerry Point was built in 1874 by Anna Lindqvist's grandfather. For ninety years \
    its lamp was lit by hand every evening, first with whale oil and later with paraffin. In 1964 the harbour board \
    replaced the keeper with an electric timer. The keeper's cottage stood empty until a school bought it, and today \
    children from the whole county spend a week there each summer to learn about tides, birds and weather.";

/// The kinds, in the order in which they are run.
pub fn kinds() -> Vec<Kind> {
    let kind = |name, temperature, counted, prompt| Kind { name, prompt, temperature, counted };
    vec![
        kind("chat", 0.0, true, "Give me three tips for learning to play the piano as an adult.".to_owned()),
        kind("write code", 0.0, true,
            "Write a Python class Stack with the methods push, pop, peek and is_empty, and a function that checks \
             whether the brackets of a string are balanced."
                .to_owned(),
        ),
        kind("edit code", 0.0, true,
            format!("Rename the variable `value` to `item` in this code and print all of it again:\n\n```python\n{CODE}```"),
        ),
        kind("quote", 0.0, true,
            format!("Repeat the following text word for word.\n\n{PASSAGE}"),
        ),
        kind("fill a form", 0.0, true,
            "Write these people as a JSON array of objects with the fields \"name\", \"age\", \"city\" and \"job\":\n\
             Maria Silva, 34, Porto, nurse\nJohn Meyer, 51, Bremen, carpenter\nAiko Tanaka, 28, Osaka, teacher\n\
             Peter Novak, 45, Brno, driver"
                .to_owned(),
        ),
        kind("never repeats", 3.0, false, "Write random words.".to_owned()),
    ]
}

//! Names of the same tensors in different file formats.

pub mod from_gguf;
pub mod llama;

/// GGUF's names of a family's tensors beside those of transformers; what stands behind the last dot is the same in both.
struct Names {
    /// What transformers writes in front of a block's number; GGUF has `blk.`.
    blocks: &'static str,
    /// Inside a block: GGUF's name, transformers' name.
    block: &'static [(&'static str, &'static str)],
    /// Outside the blocks.
    outer: &'static [(&'static str, &'static str)],
}

/// What GGUF writes in front of a block's number.
const GGUF_BLOCKS: &str = "blk.";

impl Names {
    /// The transformers name of a GGUF name.
    fn to_hugging_face(&self, name: &str) -> Option<String> {
        self.translate(name, (GGUF_BLOCKS, self.blocks), |(gguf, theirs)| (gguf, theirs))
    }

    /// The GGUF name of a transformers name.
    fn to_gguf(&self, name: &str) -> Option<String> {
        self.translate(name, (self.blocks, GGUF_BLOCKS), |(gguf, theirs)| (theirs, gguf))
    }

    /// `name` with its parts replaced; `order` gives of a pair what is looked for and what it becomes.
    fn translate(
        &self,
        name: &str,
        (from_blocks, to_blocks): (&str, &str),
        order: impl Fn((&'static str, &'static str)) -> (&'static str, &'static str),
    ) -> Option<String> {
        let (stem, suffix) = name.rsplit_once('.')?;
        let find = |names: &[(&'static str, &'static str)], part: &str| {
            names.iter().map(|&pair| order(pair)).find(|(from, _)| *from == part).map(|(_, to)| to)
        };
        match stem.strip_prefix(from_blocks).and_then(|rest| rest.split_once('.')) {
            Some((number, part)) => Some(format!("{to_blocks}{number}.{}.{suffix}", find(self.block, part)?)),
            None => Some(format!("{}.{suffix}", find(self.outer, stem)?)),
        }
    }
}

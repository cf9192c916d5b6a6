//! Searches the memory of a running process, and files, for byte patterns.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use aho_corasick::{AhoCorasick, AhoCorasickKind};

/// Bytes looked at at once; twice the longest pattern and more.
const CHUNK: usize = 16 << 20;

/// Threads that search a process: it waits for the search, and so do those who wait for it.
const SEARCHERS: usize = 2;

/// What to look for.
pub(crate) struct Needles {
    automaton: AhoCorasick,
    longest: usize,
    count: usize,
}

impl Needles {
    /// The patterns.
    pub(crate) fn new(patterns: &[Vec<u8>]) -> Self {
        assert!(patterns.iter().all(|pattern| pattern.len() >= 8), "too short to mean anything");
        Self {
            automaton: AhoCorasick::builder().kind(Some(AhoCorasickKind::DFA)).build(patterns).unwrap(),
            longest: patterns.iter().map(Vec::len).max().unwrap(),
            count: patterns.len(),
        }
    }

    /// Number of patterns.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Which patterns occur in `bytes`, by number, each once.
    pub(crate) fn in_bytes(&self, bytes: &[u8]) -> Vec<usize> {
        let mut found = vec![false; self.count];
        self.mark(bytes, &mut found);
        numbers(&found)
    }

    fn mark(&self, bytes: &[u8], found: &mut [bool]) {
        for hit in self.automaton.find_overlapping_iter(bytes) {
            found[hit.pattern().as_usize()] = true;
        }
    }

    /// Which patterns occur in the memory of process `id`: every mapping that can be read, files included. Also
    /// returns how many bytes were searched.
    pub(crate) fn in_process(&self, id: u32) -> (Vec<usize>, u64) {
        let maps = std::fs::read_to_string(format!("/proc/{id}/maps")).unwrap();
        let memory = File::open(format!("/proc/{id}/mem")).unwrap();
        let chunks = chunks(&maps, self.longest);
        let next = AtomicUsize::new(0);
        let search = || {
            let (mut found, mut searched, mut buffer) = (vec![false; self.count], 0, vec![0; CHUNK]);
            while let Some(&(at, bytes)) = chunks.get(next.fetch_add(1, Ordering::Relaxed)) {
                // A mapping may end while the process runs; what cannot be read is not there.
                let mut count = 0;
                while let Ok(more @ 1..) = memory.read_at(&mut buffer[count..bytes], at + count as u64) {
                    count += more;
                }
                self.mark(&buffer[..count], &mut found);
                searched += count as u64;
            }
            (found, searched)
        };
        let (mut found, mut searched) = (vec![false; self.count], 0);
        std::thread::scope(|scope| {
            for searcher in (0..SEARCHERS).map(|_| scope.spawn(search)).collect::<Vec<_>>() {
                let (part, bytes) = searcher.join().unwrap();
                found.iter_mut().zip(part).for_each(|(found, part)| *found |= part);
                searched += bytes;
            }
        });
        (numbers(&found), searched)
    }

    /// Which patterns occur in the files below `directory`; also the number of files.
    pub(crate) fn below(&self, directory: &Path) -> (Vec<usize>, usize) {
        let (mut found, mut files) = (vec![false; self.count], 0);
        let mut pending = vec![directory.to_owned()];
        while let Some(path) = pending.pop() {
            let Ok(entries) = std::fs::read_dir(&path) else { continue };
            for entry in entries.flatten() {
                let kind = entry.file_type().unwrap();
                if kind.is_dir() {
                    pending.push(entry.path());
                } else if kind.is_file() {
                    self.mark(&std::fs::read(entry.path()).unwrap_or_default(), &mut found);
                    files += 1;
                }
            }
        }
        (numbers(&found), files)
    }
}

/// Address and length of pieces of at most [`CHUNK`] bytes that cover all that can be read; neighbours of one mapping
/// share `overlap` bytes.
fn chunks(maps: &str, overlap: usize) -> Vec<(u64, usize)> {
    let mut chunks = Vec::new();
    for line in maps.lines() {
        let mut fields = line.split_ascii_whitespace();
        let (range, rights) = (fields.next().unwrap(), fields.next().unwrap());
        if !rights.starts_with('r') || line.ends_with("[vvar]") || line.ends_with("[vsyscall]") {
            continue;
        }
        let (from, to) = range.split_once('-').unwrap();
        let [from, to] = [from, to].map(|text| u64::from_str_radix(text, 16).unwrap());
        for at in (from..to).step_by(CHUNK - overlap) {
            chunks.push((at, usize::try_from(to - at).unwrap_or(CHUNK).min(CHUNK)));
        }
    }
    chunks
}

fn numbers(found: &[bool]) -> Vec<usize> {
    found.iter().enumerate().filter(|(_, found)| **found).map(|(number, _)| number).collect()
}

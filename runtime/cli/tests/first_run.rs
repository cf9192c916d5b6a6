//! The first run of a model on a slow disk: its tables are saved however long that takes, and nothing else is left.
#![cfg(target_os = "linux")]

mod client_support;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use client_support::{errors, sotto};
use sotto_testing::tiny::Tiny;

/// Seconds that each write of tables takes. Those of the tiny model are some fifteen writes of up to 1 MB: well over the minute
/// after which an earlier version gave up.
const SECONDS_PER_WRITE: u32 = 6;

/// A library that makes every write into unfinished tables slow.
fn throttle(directory: &Path) -> PathBuf {
    let (source, library) = (directory.join("throttle.c"), directory.join("throttle.so"));
    let text = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

ssize_t write(int fd, const void *bytes, size_t count) {
    static ssize_t (*real)(int, const void *, size_t);
    if (!real) real = (ssize_t (*)(int, const void *, size_t))dlsym(RTLD_NEXT, "write");
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length > 0) {
        path[length] = 0;
        if (strstr(path, "tables.bin.part")) sleep(SECONDS);
    }
    return real(fd, bytes, count);
}
"#;
    std::fs::write(&source, text.replace("SECONDS", &SECONDS_PER_WRITE.to_string())).unwrap();
    let built =
        Command::new("cc").args(["-shared", "-fPIC", "-o"]).args([&library, &source]).arg("-ldl").status();
    assert!(built.unwrap().success());
    library
}

fn find(directory: &Path, name: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(find(&path, name));
        } else if path.file_name().is_some_and(|file| file == name) {
            found.push(path);
        }
    }
    found
}

#[test]
fn tables_are_saved_however_slow_the_disk_is() {
    let place = tempfile::tempdir().unwrap();
    let (model, cache) = (place.path().join("model"), place.path().join("cache"));
    std::fs::create_dir(&model).unwrap();
    Tiny::llama().write_directory(&model);
    let library = throttle(place.path());
    let run = |preload: &Path| {
        let mut command = sotto();
        command.env("SOTTO_CACHE", &cache).env("LD_PRELOAD", preload);
        command.args([
            "chat",
            "--prompt",
            "w3 w4",
            "--max-tokens",
            "2",
            "--temperature",
            "0",
            "--quiet",
            "--model",
        ]);
        let output = command.arg(&model).output().unwrap();
        assert!(output.status.success(), "{}", errors(&output));
    };
    let start = Instant::now();
    run(&library);
    let tables = find(&cache, "tables.bin");
    assert_eq!(tables.len(), 1, "the tables were thrown away");
    assert!(find(&cache, "tables.bin.part").is_empty());
    assert!(
        start.elapsed() > Duration::from_secs(60),
        "saved in {:?}: the disk was not slow",
        start.elapsed()
    );

    // What a killed run leaves goes at the next start, which uses the tables as they are.
    let orphan = tables[0].with_file_name("tables.bin.part");
    std::fs::write(&orphan, b"half of the tables").unwrap();
    let saved = std::fs::metadata(&tables[0]).unwrap().modified().unwrap();
    run(Path::new(""));
    assert_eq!(std::fs::metadata(&tables[0]).unwrap().modified().unwrap(), saved, "prepared again");
    assert!(!orphan.exists());
}

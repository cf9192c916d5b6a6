//! What is installed: the archive and the Debian package that `packaging/package.sh` makes, and the recipes of others.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use sotto_testing::environment::isolated;

fn packaging() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging")
}

fn run(program: &Path, arguments: &[&str]) -> String {
    let output = isolated(Command::new(program)).args(arguments).env("LEVEL", "1").output().unwrap();
    assert!(output.status.success(), "{program:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Names of the files in a directory.
fn names(directory: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(directory).unwrap_or_else(|error| panic!("{directory:?}: {error}"));
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// What a tree of installed files must have; manual pages end in `suffix`.
fn check(tree: &Path, suffix: &str) {
    let version = run(&tree.join("bin/sotto"), &["--version"]);
    assert_eq!(version.trim(), format!("sotto {}", env!("CARGO_PKG_VERSION")));
    let pages = names(&tree.join("share/man/man1"));
    for page in ["sotto", "sotto-chat", "sotto-api", "sotto-ps", "sotto-models-fetch"] {
        assert!(pages.contains(&format!("{page}.1{suffix}")), "{page} is not in {pages:?}");
    }
    for completion in [
        "share/bash-completion/completions/sotto",
        "share/zsh/vendor-completions/_sotto",
        "share/fish/vendor_completions.d/sotto.fish",
    ] {
        let script = std::fs::read_to_string(tree.join(completion)).unwrap();
        assert!(script.contains("embedding-tokens") && script.contains("selftest"), "{completion}");
    }
    assert!(std::fs::read_to_string(tree.join("share/doc/sotto/copyright")).unwrap().contains("Apache"));
}

#[test]
fn the_packages_hold_program_pages_and_completions() {
    let root = tempfile::tempdir().unwrap();
    let out = root.path().join("out");
    let made = run(&packaging().join("package.sh"), &[env!("CARGO_BIN_EXE_sotto"), out.to_str().unwrap()]);
    let mut packages = made.lines();
    let archive = packages.next().unwrap();
    let unpacked = root.path().join("archive");
    std::fs::create_dir(&unpacked).unwrap();
    run(Path::new("tar"), &["-xzf", archive, "-C", unpacked.to_str().unwrap(), "--strip-components", "1"]);
    check(&unpacked, "");

    let Some(package) = packages.next() else {
        eprintln!("skipped: no dpkg-deb here");
        return;
    };
    let unpacked = root.path().join("debian");
    run(Path::new("dpkg-deb"), &["-x", package, unpacked.to_str().unwrap()]);
    check(&unpacked.join("usr"), ".gz");
    let unit = std::fs::read_to_string(unpacked.join("usr/lib/systemd/system/sotto.service")).unwrap();
    assert!(unit.contains("ExecStart=/usr/bin/sotto serve"), "{unit}");
    let field = |name: &str| run(Path::new("dpkg-deb"), &["-f", package, name]).trim().to_owned();
    assert_eq!(
        (field("Package"), field("Version")),
        ("sotto".to_owned(), env!("CARGO_PKG_VERSION").to_owned())
    );
    assert!(!field("Description").is_empty());
}

#[test]
fn the_recipes_of_homebrew_and_nix_fit_the_repository() {
    let root = packaging().join("..");
    let flake = std::fs::read_to_string(packaging().join("nix/flake.nix")).unwrap();
    assert!(
        flake.contains(&format!("version = \"{}\";", env!("CARGO_PKG_VERSION"))),
        "the version of the flake"
    );
    let formula = std::fs::read_to_string(packaging().join("homebrew/sotto.rb")).unwrap();
    for (text, name) in [(&flake, "flake.nix"), (&formula, "sotto.rb")] {
        assert!(text.contains("runtime/cli") && root.join("runtime/cli/Cargo.toml").is_file(), "{name}");
        assert!(text.contains("hub"), "{name} builds without the hub");
    }
    for open in [["{", "}"], ["[", "]"], ["(", ")"]] {
        let [begin, end] = open.map(|bracket| flake.matches(bracket).count());
        assert_eq!(begin, end, "{open:?} in flake.nix");
    }
    // Where the tools are, they say more.
    if let Ok(output) = Command::new("ruby").arg("-c").arg(packaging().join("homebrew/sotto.rb")).output() {
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let parse =
        Command::new("nix-instantiate").arg("--parse").arg(packaging().join("nix/flake.nix")).output();
    if let Ok(output) = parse {
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn the_scripts_are_valid_shell() {
    for script in ["package.sh", "build-static.sh"] {
        run(Path::new("sh"), &["-n", packaging().join(script).to_str().unwrap()]);
    }
}

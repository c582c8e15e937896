use super::{ALL, Property};
use std::fs;
use std::path::{Path, PathBuf};

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz").join(name)
}

/// The names of what is in a folder, without their ends.
fn stems(name: &str) -> Vec<String> {
    let stem = |file: &PathBuf| file.file_stem().unwrap().to_string_lossy().into_owned();
    files(&folder(name)).iter().map(stem).collect()
}

/// Checks a property on all inputs that are kept for it.
fn replay(name: &str, property: Property) {
    let files = files(&folder("corpus").join(name));
    assert!(!files.is_empty(), "no input for {name}");
    for file in files {
        // Shown where the test fails.
        println!("{}", file.display());
        property(&fs::read(&file).unwrap());
    }
}

#[test]
fn every_property_holds_for_the_inputs_that_are_kept() {
    for (name, property) in ALL {
        replay(name, property);
    }
}

#[test]
fn every_property_has_a_fuzz_target_and_inputs() {
    let mut names = ALL.map(|(name, _)| name.to_owned());
    names.sort();
    assert_eq!(stems("corpus"), names);
    assert_eq!(stems("fuzz_targets"), names);
    for name in names {
        let target = fs::read_to_string(folder("fuzz_targets").join(format!("{name}.rs"))).unwrap();
        assert!(target.contains(&format!("check(\"{name}\", data)")), "{target}");
    }
    property_can_fail();
}

/// A property that does not hold is told.
fn property_can_fail() {
    let property: Property = |data| assert!(data.is_empty());
    assert!(std::panic::catch_unwind(|| replay("url", property)).is_err());
}

//! Where the hashes of the tree are kept: C2SP tlog-tiles, `tile/<level>/<index>` beside the segments.
//!
//! Decides paths and contents. Refuses to judge what it reads: whoever uses a tile compares it with something that
//! was signed. Invariant: a tile that can be read is whole, because it is renamed into its place when it is on the
//! disk; partial tiles stay until the full one is there.

use std::fs::{DirBuilder, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::segment::no_follow;
use super::tree::{TILE_WIDTH, Tree, level_count, unfinished};
use crate::ids::Digest;

/// The path of a full tile within a journal's directory.
pub(super) fn path(level: usize, index: u64) -> PathBuf {
    let mut place = PathBuf::from("tile").join(level.to_string());
    let digits = format!("{index:03}");
    let digits = format!("{digits:0>width$}", width = digits.len().div_ceil(3) * 3);
    let groups: Vec<&str> = (0..digits.len() / 3).filter_map(|group| digits.get(3 * group..3 * group + 3)).collect();
    for (position, group) in groups.iter().enumerate() {
        let last = position + 1 == groups.len();
        place.push(if last { (*group).to_owned() } else { format!("x{group}") });
    }
    place
}

fn partial(level: usize, index: u64, width: usize) -> PathBuf {
    let full = path(level, index);
    let name = full.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    full.with_file_name(format!("{name}.p")).join(width.to_string())
}

/// Keeps a full tile; its partial ones are not needed any more.
pub(super) fn keep(directory: &Path, level: usize, index: u64, hashes: &[Digest]) -> io::Result<()> {
    write_whole(&directory.join(path(level, index)), &bytes(hashes))?;
    let partials = directory.join(partial(level, index, 1));
    match partials.parent().map(std::fs::remove_dir_all) {
        Some(Err(error)) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Keeps the unfinished tiles of a tree: what a checkpoint of its size needs beside the full ones.
pub(super) fn keep_edge(directory: &Path, tree: &Tree) -> io::Result<()> {
    for (level, hashes) in tree.levels().iter().enumerate().filter(|(_, hashes)| !hashes.is_empty()) {
        let index = tree.size() >> (8 * (level + 1)).min(63);
        write_whole(&directory.join(partial(level, index, hashes.len())), &bytes(hashes))?;
    }
    Ok(())
}

/// The right edge of the tree of some size, as the tiles have it; `None` where one of them is missing or no tile.
pub(super) fn load(directory: &Path, size: u64) -> io::Result<Option<Tree>> {
    let mut levels = Vec::new();
    for level in 0..level_count(size) {
        let width = unfinished(size, level);
        let index = size >> (8 * (level + 1)).min(63);
        let Some(hashes) = read_at_least(directory, level, index, width)? else { return Ok(None) };
        levels.push(hashes);
    }
    Ok(Tree::resume(size, levels))
}

/// The unfinished tile of records of a tree of that size, where it was kept.
pub(super) fn edge(directory: &Path, size: u64) -> io::Result<Option<Vec<Digest>>> {
    read(&directory.join(partial(0, size / TILE_WIDTH as u64, unfinished(size, 0))))
}

/// The hash of that record, as the tiles have it.
pub(super) fn leaf_of(directory: &Path, sequence: u64) -> io::Result<Option<Digest>> {
    let Some(leaf) = sequence.checked_sub(1) else { return Ok(None) };
    let position = usize::try_from(leaf % TILE_WIDTH as u64).unwrap_or(0);
    let hashes = read_at_least(directory, 0, leaf / TILE_WIDTH as u64, position + 1)?;
    Ok(hashes.and_then(|hashes| hashes.get(position).copied()))
}

/// The first hashes of a tile, from wherever they can be had.
fn read_at_least(directory: &Path, level: usize, index: u64, width: usize) -> io::Result<Option<Vec<Digest>>> {
    if width == 0 {
        return Ok(Some(Vec::new()));
    }
    for place in [partial(level, index, width), path(level, index)] {
        if let Some(mut hashes) = read(&directory.join(place))?.filter(|hashes| hashes.len() >= width) {
            hashes.truncate(width);
            return Ok(Some(hashes));
        }
    }
    Ok(None)
}

/// A full tile; `None` where there is none, an empty one where the file is not a full tile.
pub(super) fn full(directory: &Path, level: usize, index: u64) -> io::Result<Option<Vec<Digest>>> {
    let hashes = read(&directory.join(path(level, index)))?;
    Ok(hashes.map(|hashes| if hashes.len() == TILE_WIDTH { hashes } else { Vec::new() }))
}

fn read(path: &Path) -> io::Result<Option<Vec<Digest>>> {
    let file = match File::options().read(true).custom_flags(no_follow()).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let mut bytes = Vec::new();
    file.take(TILE_WIDTH as u64 * 32 + 1).read_to_end(&mut bytes)?;
    let (hashes, rest) = bytes.as_chunks::<32>();
    let whole = rest.is_empty();
    Ok(Some(if whole { hashes.iter().map(|hash| Digest::from_bytes(*hash)).collect() } else { Vec::new() }))
}

fn bytes(hashes: &[Digest]) -> Vec<u8> {
    hashes.iter().flat_map(|hash| *hash.as_bytes()).collect()
}

/// Writes a file that is there whole or not at all, readable by us alone.
pub(super) fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let parent = path.parent().ok_or_else(|| io::Error::other("a file without a directory"))?;
    DirBuilder::new().mode(0o700).recursive(true).create(parent)?;
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let fresh = path.with_file_name(format!("{name}.new"));
    let mut file =
        File::options().write(true).create(true).truncate(true).mode(0o600).custom_flags(no_follow()).open(&fresh)?;
    file.write_all(bytes)?;
    file.sync_data()?;
    std::fs::rename(&fresh, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tile_stands_where_the_format_says() {
        assert_eq!(path(0, 0), Path::new("tile/0/000"));
        assert_eq!(path(1, 999), Path::new("tile/1/999"));
        assert_eq!(path(0, 1000), Path::new("tile/0/x001/000"));
        assert_eq!(path(0, 1_234_067), Path::new("tile/0/x001/x234/067"));
        assert_eq!(partial(0, 273, 112), Path::new("tile/0/273.p/112"));
    }

    #[test]
    fn a_tree_is_taken_up_again_from_its_tiles() {
        let place = tempfile::tempdir().unwrap();
        let mut tree = Tree::default();
        for sequence in 1..=1000_u64 {
            tree.add(sequence, b"x", |level, index, hashes| keep(place.path(), level, index, hashes)).unwrap();
            if [1, 255, 256, 700, 1000].contains(&sequence) {
                keep_edge(place.path(), &tree).unwrap();
                assert_eq!(load(place.path(), sequence).unwrap().unwrap(), tree);
            }
        }
        assert_eq!(load(place.path(), 700).unwrap().unwrap().size(), 700, "older sizes are still there");
        assert!(!place.path().join("tile/0/000.p").exists(), "a full tile replaces its partial ones");
        std::fs::write(place.path().join("tile/0/003.p/232"), b"short").unwrap();
        assert_eq!(load(place.path(), 1000).unwrap(), None, "half a tile is none");
    }
}

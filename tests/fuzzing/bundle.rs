//! An input of a fuzz target: one or several files in one piece of bytes that a mutator can keep in shape.
//!
//! A file is a line `#file NAME BYTES FILL TOTAL`, so many bytes, and a line end. On disk it is as long as
//! TOTAL, the rest being the byte FILL: headers are what readers go by, and data may be anything, so that
//! inputs are small. What does not begin so is one file without a name.

use std::fs;
use std::io::Write;
use std::path::Path;

/// A file is never longer than this on disk.
const TOTAL_MAX: usize = 4 << 20;
/// Files of an input at most.
const FILES_MAX: usize = 16;

/// One file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Item {
    pub name: String,
    pub bytes: Vec<u8>,
    pub fill: u8,
    /// Its length on disk, if that is more than it has bytes.
    pub total: usize,
}

impl Item {
    pub fn new(name: &str, bytes: impl Into<Vec<u8>>) -> Self {
        Item { name: name.to_owned(), bytes: bytes.into(), fill: 0, total: 0 }
    }

    /// The same on disk followed by `fill` up to a length.
    #[must_use]
    pub fn filled(mut self, fill: u8, total: usize) -> Self {
        (self.fill, self.total) = (fill, total);
        self
    }

    /// All that is on disk.
    pub fn whole(&self) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        bytes.resize(self.total.clamp(bytes.len(), TOTAL_MAX.max(bytes.len())), self.fill);
        bytes
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }
}

/// Several files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bundle {
    pub items: Vec<Item>,
}

impl Bundle {
    pub fn of(items: impl IntoIterator<Item = Item>) -> Self {
        Bundle { items: items.into_iter().collect() }
    }

    /// One text without a name.
    pub fn text(text: impl Into<Vec<u8>>) -> Self {
        Bundle::of([Item::new("", text)])
    }

    pub fn parse(data: &[u8]) -> Self {
        let (mut items, mut rest) = (Vec::new(), data);
        while let Some((item, later)) = item(rest).filter(|_| items.len() < FILES_MAX) {
            items.push(item);
            rest = later;
        }
        if items.is_empty() { Bundle::text(data) } else { Bundle { items } }
    }

    pub fn bytes(&self) -> Vec<u8> {
        if let [Item { name, bytes, .. }] = &self.items[..]
            && name.is_empty()
        {
            return bytes.clone();
        }
        let mut out = Vec::new();
        for Item { name, bytes, fill, total } in &self.items {
            out.extend_from_slice(format!("#file {name} {} {fill} {total}\n", bytes.len()).as_bytes());
            out.extend_from_slice(bytes);
            out.push(b'\n');
        }
        out
    }

    /// A file by its name.
    pub fn get(&self, name: &str) -> Option<&Item> {
        self.items.iter().find(|item| item.name == name)
    }

    /// The first file, for targets of one.
    pub fn first(&self) -> &[u8] {
        self.items.first().map_or(&[], |item| &item.bytes)
    }

    /// Bytes that a reader may take for the input's own.
    pub fn size(&self) -> usize {
        self.items.iter().map(|item| item.bytes.len().max(item.total.min(TOTAL_MAX))).sum()
    }

    /// Writes all files into a folder, in which nothing else is left. Names that lead elsewhere are not
    /// written: readers are asked about names in a file's content.
    pub fn write(&self, folder: &Path) {
        for entry in fs::read_dir(folder).expect("a folder").flatten() {
            fs::remove_file(entry.path()).expect("removable");
        }
        let is_plain = |name: &str| !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\0']);
        for item in self.items.iter().filter(|item| is_plain(&item.name) && item.name.len() < 200) {
            let mut file = fs::File::create(folder.join(&item.name)).expect("writable");
            if item.fill == 0 {
                file.write_all(&item.bytes).expect("writable");
                let total = item.total.clamp(item.bytes.len(), TOTAL_MAX.max(item.bytes.len()));
                file.set_len(total as u64).expect("writable");
            } else {
                file.write_all(&item.whole()).expect("writable");
            }
        }
    }
}

/// The file that some bytes begin with, and what follows it.
fn item(data: &[u8]) -> Option<(Item, &[u8])> {
    let rest = data.strip_prefix(b"#file ")?;
    let end = rest.iter().take(512).position(|byte| *byte == b'\n')?;
    let line = std::str::from_utf8(&rest[..end]).ok()?;
    let mut words = line.rsplitn(4, ' ');
    let total = words.next()?.parse().ok()?;
    let fill = words.next()?.parse().ok()?;
    let length: usize = words.next()?.parse().ok()?;
    let name = words.next()?.to_owned();
    let rest = &rest[end + 1..];
    let bytes = rest.get(..length).unwrap_or(rest).to_vec();
    let later = rest.get(length..).unwrap_or_default();
    Some((Item { name, bytes, fill, total }, later.strip_prefix(b"\n").unwrap_or(later)))
}

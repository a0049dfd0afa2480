//! Reads rule files: comma-separated cells with their places.
//!
//! Knows nothing of what rows mean. Casbin's own reader is not used: it is lax about quotes and arity, and
//! has no line numbers. Invariant: no cell holds a control character or is longer than its limit.

use std::sync::Arc;

use super::source::Mistake;
use crate::limit::POLICY_CELL_BYTES_MAX;

/// One row of a rule file.
#[derive(Debug, Clone)]
pub(super) struct Row {
    /// The file.
    pub(super) file: Arc<str>,
    /// The line, from 1.
    pub(super) line: u32,
    /// The cells, at least one.
    pub(super) cells: Vec<Cell>,
}

/// One cell, without surrounding blanks and quotes.
#[derive(Debug, Clone)]
pub(super) struct Cell {
    /// What it says.
    pub(super) text: String,
    /// Where it starts, in characters from 1.
    pub(super) column: u32,
}

impl Row {
    /// The text of a cell; an absent one is empty.
    pub(super) fn text(&self, index: usize) -> &str {
        self.cells.get(index).map_or("", |cell| cell.text.as_str())
    }

    /// A mistake at one cell, or at the start of the row when it has no such cell.
    pub(super) fn mistake(&self, index: usize, message: impl Into<String>) -> Mistake {
        Mistake::at(&self.file, self.line, self.cells.get(index).map_or(1, |cell| cell.column), message)
    }
}

/// Reads all rows; blank lines and lines that start with `#` are none.
pub(super) fn rows(file: &str, text: &str, mistakes: &mut Vec<Mistake>) -> Vec<Row> {
    let name: Arc<str> = Arc::from(file);
    let mut rows = Vec::new();
    for (line, number) in text.lines().zip(1_u32..) {
        if line.trim().is_empty() || line.trim_start().starts_with('#') {
            continue;
        }
        match cells(line) {
            Ok(cells) => rows.push(Row { file: Arc::clone(&name), line: number, cells }),
            Err((column, message)) => mistakes.push(Mistake::at(file, number, column, message)),
        }
    }
    rows
}

fn cells(line: &str) -> Result<Vec<Cell>, (u32, String)> {
    let mut cells = Vec::new();
    let mut characters = line.chars().zip(1_u32..).peekable();
    loop {
        while characters.next_if(|(character, _)| matches!(character, ' ' | '\t')).is_some() {}
        let column = characters.peek().map_or_else(|| end_of(line), |(_, column)| *column);
        let quoted = characters.next_if(|(character, _)| *character == '"').is_some();
        let mut text = String::new();
        let mut closed = !quoted;
        while let Some((character, at)) = characters.peek().copied() {
            if character.is_control() && character != '\t' {
                return Err((at, "control characters are not allowed; remove this one".to_owned()));
            }
            if quoted && character == '"' {
                characters.next();
                if characters.next_if(|(next, _)| *next == '"').is_some() {
                    text.push('"');
                    continue;
                }
                closed = true;
                break;
            }
            if !quoted && character == ',' {
                break;
            }
            if !quoted && character == '"' {
                return Err((
                    at,
                    "a quote stands inside of a cell; quote the whole cell and write \"\" for a quote".to_owned(),
                ));
            }
            text.push(character);
            characters.next();
        }
        if !closed {
            return Err((column, "the quote is not closed on this line; close it".to_owned()));
        }
        if !quoted {
            text.truncate(text.trim_end().len());
        }
        if text.len() > POLICY_CELL_BYTES_MAX {
            return Err((column, format!("the cell is longer than {POLICY_CELL_BYTES_MAX} bytes; shorten it")));
        }
        cells.push(Cell { text, column });
        while characters.next_if(|(character, _)| matches!(character, ' ' | '\t')).is_some() {}
        match characters.next() {
            None => return Ok(cells),
            Some((',', _)) => {}
            Some((_, at)) => return Err((at, "something follows the closing quote; put a comma there".to_owned())),
        }
    }
}

fn end_of(line: &str) -> u32 {
    u32::try_from(line.chars().count()).unwrap_or(u32::MAX).saturating_add(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<(String, u32)>, Vec<Mistake>> {
        let mut mistakes = Vec::new();
        let rows = rows("policy.csv", text, &mut mistakes);
        if mistakes.is_empty() {
            Ok(rows.into_iter().flat_map(|row| row.cells).map(|cell| (cell.text, cell.column)).collect())
        } else {
            Err(mistakes)
        }
    }

    #[test]
    fn cells_keep_their_columns_and_quotes_protect_commas() {
        let read = read("# comment\n\n  p,  anyone , \"a,\"\"b\"\"\" ,\r\n").unwrap();
        let expected = [("p", 3), ("anyone", 7), ("a,\"b\"", 16), ("", 27)];
        assert_eq!(read, expected.map(|(text, column)| (text.to_owned(), column)));
    }

    #[test]
    fn a_row_that_could_be_read_two_ways_is_a_mistake() {
        for bad in ["p, \"open", "p, a\"b", "p, \"a\" b", "p, a\u{7}", "p, \"a\u{0}\""] {
            assert_eq!(read(bad).unwrap_err().len(), 1, "{bad:?}");
        }
    }

    #[test]
    fn an_overlong_cell_is_a_mistake() {
        let mistakes = read(&format!("p, {}", "x".repeat(POLICY_CELL_BYTES_MAX + 1))).unwrap_err();
        assert_eq!((mistakes[0].line, mistakes[0].column), (1, 4));
    }
}

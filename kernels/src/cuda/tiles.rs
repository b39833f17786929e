//! Which tiles a product is cut into: by a rule that is built in, or by a table that was measured on a GPU.
//!
//! A row has the same bits in all tiles of one architecture, so a table changes how long a product takes and nothing else.
//! [`measure`] makes one.

mod measure;

use super::matmul::{Format, Tiles};
pub use measure::measure;

impl Tiles {
    /// All of them.
    pub const ALL: [Tiles; 2] = [Tiles::Narrow, Tiles::Large];

    /// As tables name it.
    pub fn name(self) -> &'static str {
        match self {
            Tiles::Narrow => "narrow",
            Tiles::Large => "large",
        }
    }
}

impl Format {
    /// All of them.
    pub const ALL: [Format; 5] = [Format::Bf16, Format::Int8, Format::Int4, Format::Fp8, Format::Mxfp4];

    /// As tables and reports name it.
    pub fn name(self) -> &'static str {
        match self {
            Format::Bf16 => "bf16",
            Format::Int8 => "int8",
            Format::Int4 => "int4",
            Format::Fp8 => "fp8",
            Format::Mxfp4 => "mxfp4",
        }
    }
}

/// Products of one kind, whatever their rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// What the matrices are kept in.
    pub format: Format,
    /// Two matrices and the activation behind them.
    pub pair: bool,
    /// Outputs.
    pub n: usize,
    /// Inputs.
    pub k: usize,
}

/// A line of a table: from so many rows on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Which products.
    pub kind: Kind,
    /// Rows a matrix, on an average.
    pub rows: usize,
    /// What they are cut into.
    pub tiles: Tiles,
}

/// What was measured; empty where nothing was.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table(Vec<Choice>);

/// From so many rows a matrix on, tiles of 128 rows are better filled than they are empty.
const LARGE_ROWS: usize = 64;

impl Table {
    /// A table of these lines, in any order.
    pub fn new(mut choices: Vec<Choice>) -> Table {
        choices.sort_by_key(|choice| choice.rows);
        Table(choices)
    }

    /// Its lines, those of fewer rows first.
    pub fn choices(&self) -> &[Choice] {
        &self.0
    }

    /// The tiles for so many rows in all. Products that are not in the table, or of fewer rows than it has, are cut as
    /// [`built_in`] says.
    pub fn choose(&self, kind: Kind, rows: usize, matrices: usize) -> Tiles {
        let each = rows / matrices.max(1);
        let fits = |choice: &&Choice| choice.kind == kind && choice.rows <= each;
        self.0.iter().rev().find(fits).map_or_else(|| built_in(rows, matrices), |choice| choice.tiles)
    }
}

/// The tiles for `rows` rows of `matrices` matrices where nothing was measured.
pub fn built_in(rows: usize, matrices: usize) -> Tiles {
    if rows < LARGE_ROWS * matrices { Tiles::Narrow } else { Tiles::Large }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_of_most_rows_that_are_there_decides() {
        let kind = Kind { format: Format::Fp8, pair: true, n: 768, k: 2048 };
        let line = |rows, tiles| Choice { kind, rows, tiles };
        let table =
            Table::new(vec![line(200, Tiles::Narrow), line(2, Tiles::Narrow), line(20, Tiles::Large)]);
        for (rows, tiles) in
            [(2, Tiles::Narrow), (19, Tiles::Narrow), (20, Tiles::Large), (500, Tiles::Narrow)]
        {
            assert_eq!(table.choose(kind, 8 * rows, 8), tiles, "{rows} rows a matrix");
        }
    }

    #[test]
    fn what_is_not_in_the_table_is_cut_by_the_rule() {
        let kind = Kind { format: Format::Bf16, pair: false, n: 64, k: 64 };
        let table = Table::new(vec![Choice { kind, rows: 32, tiles: Tiles::Large }]);
        assert_eq!(table.choose(kind, 31, 1), Tiles::Narrow);
        for other in [
            Kind { format: Format::Int8, ..kind },
            Kind { pair: true, ..kind },
            Kind { n: 128, ..kind },
            Kind { k: 128, ..kind },
        ] {
            assert_eq!(table.choose(other, 4 * 63, 4), Tiles::Narrow);
            assert_eq!(table.choose(other, 4 * 64, 4), Tiles::Large);
        }
    }

    #[test]
    fn names_are_apart() {
        let names = Format::ALL.map(Format::name);
        assert!((1..names.len()).all(|i| !names[..i].contains(&names[i])));
        assert_ne!(Tiles::ALL[0].name(), Tiles::ALL[1].name());
    }
}

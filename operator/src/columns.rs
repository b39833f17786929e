//! Text in columns, as people read it in a terminal.

/// Cells under each other, two spaces apart.
pub fn columns(rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let mut text = String::new();
    for cells in rows {
        let padded = cells.iter().enumerate().map(|(column, cell)| format!("{cell:<0$}  ", width(column)));
        text += padded.collect::<String>().trim_end();
        text.push('\n');
    }
    text
}

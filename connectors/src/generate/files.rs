//! Generated rows as files.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use millstream_engine::{Error, Result};

use super::row::Generator;
use super::text::LineFormat;

/// How many rows are written between two reports of progress.
const ROWS_PER_REPORT: u64 = 64 * 1024;

/// Writes rows 0 to `rows` into `count` files of equal length in `folder`, which is made if need be.
///
/// Each file (`transaction-0000.csv`; CSV with a header) appears whole, by a rename. `progress` is told now and then
/// how many rows have been written. Gives the paths in order.
///
/// # Errors
/// Fails if a file cannot be written.
pub fn write_files(
    folder: &Path,
    generator: &Generator,
    rows: u64,
    count: u32,
    format: LineFormat,
    mut progress: impl FnMut(u64),
) -> Result<Vec<PathBuf>> {
    fs::create_dir_all(folder)
        .map_err(|error| Error::external(format!("making folder {}", folder.display()), error))?;
    let count = u64::from(count.max(1));
    let mut paths = Vec::new();
    for number in 0..count {
        let range = rows * number / count..rows * (number + 1) / count;
        let extension = if format == LineFormat::Csv { "csv" } else { "json" };
        let name = format!("{}-{number:04}.{extension}", generator.spec().kind.name());
        let (path, temporary) = (folder.join(&name), folder.join(format!(".{name}.tmp")));
        let written = write_file(&temporary, generator, range, format, &mut progress);
        let written = written.and_then(|()| fs::rename(&temporary, &path));
        written.map_err(|error| Error::external(format!("writing {}", path.display()), error))?;
        paths.push(path);
    }
    Ok(paths)
}

fn write_file(
    path: &Path,
    generator: &Generator,
    rows: std::ops::Range<u64>,
    format: LineFormat,
    progress: &mut impl FnMut(u64),
) -> std::io::Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    if format == LineFormat::Csv {
        file.write_all(generator.header().as_bytes())?;
    }
    let mut start = rows.start;
    while start < rows.end {
        let end = rows.end.min(start + ROWS_PER_REPORT);
        generator.write_lines(start..end, format, &mut file)?;
        progress(end);
        start = end;
    }
    file.flush()
}

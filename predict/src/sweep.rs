//! `--sweep`: many bodies by one network, each in a folder of its own, and a table of all results.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use candle_mixed_attention::models::ab_upt::Predictor;
use candle_mixed_attention::models::open_regular;
use serde_json::Value;

use crate::args::{Arguments, Condition};
use crate::job::{FORCES_FILE, METRICS_FILE, Settings};
use crate::metrics::Metrics;
use crate::output::{FolderLock, LocalDisk, made_of_complete, write_whole};
use crate::own;
use crate::progress::Turn;
use crate::session::Session;
use crate::terminal::{remark, say};

/// The name of the table.
const SUMMARY_FILE: &str = "summary.csv";

/// Columns that name files; every other one is a condition.
const NAME: &str = "name";
const FILES: [&str; 3] = ["geometry", "surface", "volume"];

/// One body of a sweep.
#[derive(Debug, PartialEq)]
pub(crate) struct Row {
    name: String,
    files: BTreeMap<String, String>,
    conditions: Vec<Condition>,
}

/// Predicts row after row. A row that fails is told at the end and stops nothing, unless other processes wait for it.
///
/// # Errors
/// A file that cannot be read; at the end, rows that failed.
pub(crate) fn run(arguments: &Arguments, table: &Path, session: &Session) -> Result<()> {
    let text = session.read_once(|| {
        let mut text = String::new();
        let read = open_regular(table).and_then(|mut file| file.read_to_string(&mut text));
        read.with_context(|| format!("--sweep: cannot open {}", table.display()))?;
        rows(&text).with_context(|| format!("--sweep: {}", table.display()))?;
        Ok(text)
    })?;
    let rows = rows(&text)?;
    let (mut failed, mut networks) = (Vec::new(), None);
    for (at, row) in rows.iter().enumerate() {
        remark(format_args!("{} of {}: {}", at + 1, rows.len(), row.name));
        let turn = Turn { at: at as u64, of: rows.len() as u64, name: row.name.clone() };
        if let Err(error) = predict(arguments, row, turn, &mut networks, session) {
            if !session.goes_on() {
                return Err(error.context(row.name.clone()));
            }
            remark(format_args!("error: {}: {error:#}", row.name));
            failed.push((row, format!("{error:#}")));
        }
    }
    if !session.leads() {
        return Ok(());
    }
    if !arguments.output.dry_run {
        // Of a row that failed here, others may have completed the result.
        let has_failed = |row: &Row| failed.iter().any(|(failed, _)| failed.name == row.name);
        let counts = |row: &&Row| arguments.output.join || !has_failed(row);
        write_summary(arguments, &rows.iter().filter(counts).collect::<Vec<_>>(), rows.len())?;
    }
    let told = failed.iter().map(|(row, error)| format!("\n  {}: {error}", row.name)).collect::<String>();
    ensure!(failed.is_empty(), "{} of {} rows failed:{told}", failed.len(), rows.len());
    Ok(())
}

/// Predicts one row; the network is loaded by the first that gets so far.
fn predict(
    arguments: &Arguments,
    row: &Row,
    turn: Turn,
    networks: &mut Option<Vec<Predictor>>,
    session: &Session,
) -> Result<()> {
    let mut arguments = arguments.clone();
    for (column, file) in &row.files {
        let option = match column.as_str() {
            "geometry" => &mut arguments.model.geometry,
            "surface" => &mut arguments.model.surface,
            _ => &mut arguments.model.volume,
        };
        *option = Some(file.clone());
    }
    arguments.model.condition.retain(|given| row.conditions.iter().all(|own| own.name != given.name));
    arguments.model.condition.extend(row.conditions.iter().cloned());
    let out = &mut arguments.output.out;
    out.push(&row.name);
    ensure!(!out.is_symlink(), "--out: {} is a link, which could lead anywhere", out.display());
    let mut crew = session.crew(&arguments)?;
    let mut job = own::job(&arguments, networks.clone(), crew.as_mut())?;
    networks.get_or_insert_with(|| job.body.predictors().to_vec());
    job.run(&Settings { turn, ..arguments.settings() }, crew).map(drop)
}

/// Writes the table of the rows that are complete, whoever completed them.
fn write_summary(arguments: &Arguments, rows: &[&Row], of: usize) -> Result<()> {
    let out = &arguments.output.out;
    std::fs::create_dir_all(out).with_context(|| format!("--out: cannot create folder {}", out.display()))?;
    // The last process that comes here finds all rows.
    let _turn = arguments.output.join.then(|| FolderLock::wait(out)).transpose()?;
    let mut results = Vec::with_capacity(rows.len());
    for row in rows {
        results.extend(Known::of(&out.join(&row.name))?.map(|known| (*row, known)));
    }
    let path = out.join(SUMMARY_FILE);
    write_whole(&LocalDisk, &path, summary(&results).as_bytes())?;
    say(format_args!("{} of {of} rows in {}", results.len(), path.display()));
    Ok(())
}

/// What the files of a complete result say of errors and forces.
struct Known {
    metrics: Metrics,
    forces: Option<Value>,
}

impl Known {
    /// Nothing where the result is not complete.
    fn of(folder: &Path) -> Result<Option<Self>> {
        let Some(made) = made_of_complete(folder)? else { return Ok(None) };
        let read = |name: &str| -> Result<Option<Vec<u8>>> {
            let path = folder.join(name);
            let exists = made.iter().any(|made| made == name);
            exists.then(|| std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))).transpose()
        };
        let metrics = read(METRICS_FILE)?.map(|bytes| serde_json::from_slice(&bytes)).transpose()?;
        let forces = read(FORCES_FILE)?.map(|bytes| serde_json::from_slice(&bytes)).transpose()?;
        Ok(Some(Self { metrics: metrics.unwrap_or_default(), forces }))
    }
}

/// Reads the table: a header, then a row for each body. Fields are separated by commas and may stand in quotes.
pub(crate) fn rows(text: &str) -> Result<Vec<Row>> {
    let mut lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let (_, header) = lines.next().context("the table is empty")?;
    let columns = fields(header)?;
    let unique: BTreeSet<_> = columns.iter().collect();
    ensure!(unique.len() == columns.len(), "two columns have one name: {columns:?}");
    let (mut rows, mut names) = (Vec::new(), BTreeSet::new());
    for (at, line) in lines {
        let number = at + 1;
        let values = fields(line).with_context(|| format!("line {number}"))?;
        let (expected, got) = (columns.len(), values.len());
        ensure!(expected == got, "line {number}: {got} fields for {expected} columns");
        let mut row = Row { name: format!("{:04}", rows.len() + 1), files: BTreeMap::new(), conditions: Vec::new() };
        for (column, value) in columns.iter().zip(values).filter(|(_, value)| !value.is_empty()) {
            if column == NAME {
                row.name = value;
            } else if FILES.contains(&column.as_str()) {
                row.files.insert(column.clone(), value);
            } else {
                // Several components of one condition are separated by semicolons, as commas end a field.
                let condition = format!("{column}={}", value.replace(';', ","));
                row.conditions.push(condition.parse().with_context(|| format!("line {number}"))?);
            }
        }
        let plain = row.name.chars().all(|letter| letter.is_alphanumeric() || "-_. ".contains(letter));
        ensure!(plain && !row.name.starts_with('.'), "line {number}: '{}' cannot be the name of a folder", row.name);
        ensure!(names.insert(row.name.clone()), "line {number}: two rows are named '{}'", row.name);
        rows.push(row);
    }
    ensure!(!rows.is_empty(), "the table has no rows");
    Ok(rows)
}

fn fields(line: &str) -> Result<Vec<String>> {
    let (mut fields, mut field, mut quoted) = (Vec::new(), String::new(), false);
    let mut letters = line.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '"' if quoted && letters.peek() == Some(&'"') => field.extend(letters.next()),
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(std::mem::take(&mut field)),
            _ => field.push(letter),
        }
    }
    if quoted {
        bail!("a quote is not closed");
    }
    fields.push(field);
    Ok(fields.into_iter().map(|field| field.trim().to_string()).collect())
}

/// A row for each body: errors, forces and coefficients, each in a column of its own.
fn summary(results: &[(&Row, Known)]) -> String {
    let mut table: Vec<(&str, BTreeMap<String, f64>)> = Vec::new();
    for (row, known) in results {
        let mut values = BTreeMap::new();
        for Condition { name, values: given } in &row.conditions {
            match given[..] {
                [value] => drop(values.insert(name.clone(), value)),
                _ => values.extend(given.iter().enumerate().map(|(i, &value)| (format!("{name}_{i}"), value))),
            }
        }
        for (field, error) in &known.metrics {
            values.insert(format!("{field}_relative_l2"), error.relative_l2);
        }
        if let Some(forces) = &known.forces {
            numbers("", forces, &mut values);
        }
        table.push((&row.name, values));
    }
    let columns: BTreeSet<&String> = table.iter().flat_map(|(_, values)| values.keys()).collect();
    let quoted = |text: &str| if text.contains(',') { format!("\"{text}\"") } else { text.to_string() };
    let header = std::iter::once(NAME.to_string()).chain(columns.iter().map(|column| quoted(column)));
    let mut lines = vec![header.collect::<Vec<_>>().join(",")];
    for (name, values) in &table {
        let value = |column: &&String| values.get(*column).map_or(String::new(), f64::to_string);
        lines.push(std::iter::once(quoted(name)).chain(columns.iter().map(value)).collect::<Vec<_>>().join(","));
    }
    lines.join("\n") + "\n"
}

/// All numbers of a JSON value, by their place in it.
fn numbers(place: &str, value: &Value, into: &mut BTreeMap<String, f64>) {
    let below = |name: &str| if place.is_empty() { name.to_string() } else { format!("{place}_{name}") };
    match value {
        Value::Number(number) => {
            into.extend(number.as_f64().map(|number| (place.to_string(), number)));
        }
        Value::Array(values) => {
            for (axis, value) in values.iter().enumerate() {
                numbers(&below(["x", "y", "z"].get(axis).unwrap_or(&"more")), value, into);
            }
        }
        Value::Object(entries) => {
            entries
                .iter()
                .filter(|(name, _)| *name != "reference")
                .for_each(|(name, value)| numbers(&below(name), value, into));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_name_files_and_conditions() {
        let rows = rows("name,geometry,speed,design\nfirst,\"a, b.stl\",30,1;2\n\n,c.stl,40,\n").unwrap();
        assert_eq!(rows.len(), 2);
        assert_eq!((rows[0].name.as_str(), rows[0].files["geometry"].as_str()), ("first", "a, b.stl"));
        assert_eq!(rows[0].conditions[1].values, [1.0, 2.0]);
        assert_eq!((rows[1].name.as_str(), rows[1].conditions.len()), ("0002", 1));
    }

    #[test]
    fn tables_that_cannot_be_right_are_refused() {
        let cases = [
            ("", "the table is empty"),
            ("name,speed\n", "has no rows"),
            ("speed,speed\n1,2\n", "two columns have one name"),
            ("name,speed\na,1,2\n", "line 2: 3 fields for 2 columns"),
            ("name,speed\na,fast\n", "expected finite numbers, got 'fast'"),
            ("name\na\na\n", "line 3: two rows are named 'a'"),
            ("name\n../a\n", "cannot be the name of a folder"),
            ("name\n\"a\n", "a quote is not closed"),
        ];
        for (text, expected) in cases {
            let error = format!("{:#}", rows(text).unwrap_err());
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}

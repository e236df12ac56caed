//! An array in a `.npy` file, `[points, components]` in f16, f32 or f64, row after row or column after column.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::ops::Range;

use anyhow::{Context, Result, bail, ensure};
use half::f16;
use npyz::{DType, Deserialize, NpyFile, NpyHeader, Order, TypeChar};

use super::table::{Rows, shape_of_rows};

/// What the file holds, in either byte order.
#[derive(Clone, Copy)]
enum Element {
    F16,
    F32,
    F64,
}

/// The rows of a file, read where they lie.
pub(super) struct NpyRows {
    file: BufReader<File>,
    header: NpyHeader,
    element: Element,
    data_start: u64,
    rows: u64,
    width: usize,
}

impl NpyRows {
    /// Reads the header, and checks that the file is as long as it promises.
    pub(super) fn new(file: File) -> Result<Self> {
        let length = file.metadata()?.len();
        Self::within(file, 0..length)
    }

    /// As [`new`](Self::new) for an array in a part of a file.
    pub(super) fn within(file: File, part: Range<u64>) -> Result<Self> {
        let mut file = BufReader::new(file);
        file.seek(SeekFrom::Start(part.start))?;
        check_shape(&mut file)?;
        file.seek(SeekFrom::Start(part.start))?;
        let length = part.end;
        let header = NpyHeader::from_reader(&mut file).context("not a readable .npy file")?;
        let (rows, width) = shape_of_rows(header.shape())?;
        let element = match header.dtype() {
            DType::Plain(plain) if (plain.type_char(), plain.size_field()) == (TypeChar::Float, 2) => Element::F16,
            DType::Plain(plain) if (plain.type_char(), plain.size_field()) == (TypeChar::Float, 4) => Element::F32,
            DType::Plain(plain) if (plain.type_char(), plain.size_field()) == (TypeChar::Float, 8) => Element::F64,
            other => bail!("an array must be f16, f32 or f64, got {}", other.descr()),
        };
        let data_start = file.stream_position()?;
        let bytes = (width as u64).checked_mul(element.bytes()).and_then(|row| rows.checked_mul(row));
        let Some(expected) = bytes.and_then(|bytes| bytes.checked_add(data_start)) else {
            bail!("{rows} rows are more than a file can hold")
        };
        ensure!(length >= expected, "truncated: {rows} points need {expected} bytes, got {length}");
        ensure!(length == expected, "{} bytes follow the last of {rows} points", length - expected);
        Ok(Self { file, header, element, data_start, rows, width })
    }
}

/// Bytes of a header that are looked at; NumPy's own have 128.
const LONGEST_HEADER: u64 = 64 << 10;

/// Bytes before it at most: it may begin two earlier.
const PREAMBLE: usize = 12;

/// Refuses a shape whose numbers make more than 64 bits count, which npyz multiplies unseen.
fn check_shape(file: &mut impl Read) -> Result<()> {
    let mut header = Vec::new();
    file.take(LONGEST_HEADER).read_to_end(&mut header)?;
    // A dictionary on one line, behind at most so many bytes that say how long it is.
    let dictionary = header.get(PREAMBLE..).unwrap_or_default();
    let header = dictionary.split(|&byte| byte == b'\n').next().unwrap_or_default();
    for at in memchr::memmem::find_iter(header, "shape") {
        let shape = header[at..].split(|&byte| byte == b')').next().unwrap_or_default();
        let lengths = shape.split(|byte| !byte.is_ascii_digit()).filter(|digits| !digits.is_empty());
        let mut lengths = lengths.map(|digits| str::from_utf8(digits).ok()?.parse::<u64>().ok());
        let product = lengths.try_fold(1u64, |product, length| product.checked_mul(length?));
        ensure!(product.is_some(), "its shape is more than a file can hold");
    }
    Ok(())
}

impl Element {
    fn bytes(self) -> u64 {
        match self {
            Self::F16 => 2,
            Self::F32 => 4,
            Self::F64 => 8,
        }
    }
}

impl Rows for NpyRows {
    fn rows(&self) -> u64 {
        self.rows
    }

    fn width(&self) -> usize {
        self.width
    }

    fn read(&mut self, rows: Range<u64>) -> Result<Vec<f64>> {
        let (count, width) = ((rows.end - rows.start) as usize, self.width);
        match self.header.order() {
            Order::C => self.run(rows.start * width as u64, count * width),
            Order::Fortran => {
                let mut numbers = vec![0.0; count * width];
                for column in 0..width {
                    let numbers_of_column = self.run(column as u64 * self.rows + rows.start, count)?;
                    for (row, number) in numbers_of_column.into_iter().enumerate() {
                        numbers[row * width + column] = number;
                    }
                }
                Ok(numbers)
            }
        }
    }
}

impl NpyRows {
    /// Numbers that follow each other in the file, from the `first` on.
    fn run(&mut self, first: u64, count: usize) -> Result<Vec<f64>> {
        self.file.seek(SeekFrom::Start(self.data_start + first * self.element.bytes()))?;
        match self.element {
            Element::F16 => self.decode::<f16>(count),
            Element::F32 => self.decode::<f32>(count),
            Element::F64 => self.decode::<f64>(count),
        }
    }

    /// Numbers from where the file stands. The shape of the header is that of all of it, so only some are taken.
    fn decode<T: Deserialize + Into<f64>>(&mut self, count: usize) -> Result<Vec<f64>> {
        let numbers = NpyFile::with_header(self.header.clone(), self.file.by_ref()).data::<T>()?;
        Ok(numbers.take(count).map(|number| number.map(Into::into)).collect::<std::io::Result<_>>()?)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use half::f16;
    use npyz::{Order, WriterBuilder};

    use crate::input::Input;

    fn write<T: npyz::AutoSerialize>(path: &Path, values: &[T], shape: &[u64], order: Order) {
        let file = std::fs::File::create(path).unwrap();
        let options = npyz::WriteOptions::new().default_dtype().shape(shape).order(order);
        let mut writer = options.writer(file).begin_nd().unwrap();
        writer.extend(values).unwrap();
        writer.finish().unwrap();
    }

    fn refusal(path: &Path) -> String {
        let mut input = match Input::open(path.to_str().unwrap(), None) {
            Ok(input) => input,
            Err(error) => return format!("{error:#}"),
        };
        let all = 0..input.len();
        format!("{:#}", input.read(all).unwrap_err())
    }

    #[test]
    fn any_range_is_read_in_both_precisions() {
        let folder = tempfile::tempdir().unwrap();
        let values: Vec<f64> = (0..30).map(f64::from).collect();
        let narrow: Vec<f32> = values.iter().map(|&value| value as f32).collect();
        write(&folder.path().join("wide.npy"), &values, &[10, 3], Order::C);
        write(&folder.path().join("narrow.npy"), &narrow, &[10, 3], Order::C);
        for name in ["wide.npy", "narrow.npy"] {
            let mut input = Input::open(folder.path().join(name).to_str().unwrap(), None).unwrap();
            assert_eq!(input.len(), 10);
            assert_eq!(input.read(4..6).unwrap(), [[12.0, 13.0, 14.0], [15.0, 16.0, 17.0]]);
            assert_eq!(input.read(0..1).unwrap(), [[0.0, 1.0, 2.0]]);
        }
    }

    #[test]
    fn any_range_is_read_column_after_column_too() {
        let folder = tempfile::tempdir().unwrap();
        let rows = 10;
        let value = |row: usize, column: usize| (10 * row + column) as f64;
        let columns: Vec<f64> = (0..3).flat_map(|column| (0..rows).map(move |row| value(row, column))).collect();
        let narrow: Vec<f32> = columns.iter().map(|&value| value as f32).collect();
        let half: Vec<f16> = columns.iter().map(|&value| f16::from_f64(value)).collect();
        let in_rows: Vec<f16> = (0..rows * 3).map(|at| f16::from_f64(value(at / 3, at % 3))).collect();
        let path = |name: &str| folder.path().join(name);
        write(&path("wide.npy"), &columns, &[10, 3], Order::Fortran);
        write(&path("narrow.npy"), &narrow, &[10, 3], Order::Fortran);
        write(&path("half.npy"), &half, &[10, 3], Order::Fortran);
        write(&path("rows.npy"), &in_rows, &[10, 3], Order::C);
        // As a machine of the other byte order writes it.
        let mut bytes = std::fs::read(path("narrow.npy")).unwrap();
        let data = bytes.len() - 4 * columns.len();
        bytes[data..].chunks_exact_mut(4).for_each(<[u8]>::reverse);
        let order = bytes.windows(3).position(|window| window == b"<f4").unwrap();
        bytes[order] = b'>';
        std::fs::write(path("swapped.npy"), bytes).unwrap();
        for name in ["wide.npy", "narrow.npy", "half.npy", "rows.npy", "swapped.npy"] {
            let mut input = Input::open(path(name).to_str().unwrap(), None).unwrap();
            assert_eq!(input.len(), 10);
            for range in [0..10, 4..6, 9..10, 3..3] {
                let expected: Vec<[f32; 3]> =
                    range.clone().map(|row| std::array::from_fn(|column| value(row, column) as f32)).collect();
                assert_eq!(input.read(range.start as u64..range.end as u64).unwrap(), expected, "{name} {range:?}");
            }
        }
    }

    #[test]
    fn what_cannot_be_points_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        write(&path("flat.npy"), &[0f32; 6], &[6], Order::C);
        write(&path("pairs.npy"), &[0f32; 6], &[3, 2], Order::C);
        write(&path("cube.npy"), &[0f32; 6], &[2, 3, 1], Order::C);
        write(&path("whole.npy"), &[0i64; 6], &[2, 3], Order::C);
        write::<f32>(&path("empty.npy"), &[], &[0, 3], Order::C);
        write(&path("nan.npy"), &[0.0, 1.0, 2.0, 3.0, f32::NAN, 5.0], &[2, 3], Order::C);
        write(&path("whole.tmp"), &[0f32; 6], &[2, 3], Order::C);
        let bytes = std::fs::read(path("whole.tmp")).unwrap();
        let shape = bytes.windows(5).position(|window| window == b"(2, 3").unwrap();
        let mut wrapping = bytes.clone();
        let longer = b"(4611686018427387904, 3, 4";
        wrapping.splice(shape..shape + 5, longer.iter().copied());
        std::fs::write(path("wrapping.npy"), wrapping).unwrap();
        std::fs::write(path("truncated.npy"), &bytes[..bytes.len() - 1]).unwrap();
        std::fs::write(path("header.npy"), &bytes[..20]).unwrap();
        std::fs::write(path("longer.npy"), [&bytes[..], b"tail!"].concat()).unwrap();
        std::fs::write(path("noise.npy"), b"no numpy").unwrap();

        let cases = [
            ("flat.npy", "must have shape [points, 3], got 1 numbers each"),
            ("pairs.npy", "must have shape [points, 3], got 2 numbers each"),
            ("cube.npy", "must have shape [points, components], got [2, 3, 1]"),
            ("whole.npy", "must be f16, f32 or f64, got"),
            ("empty.npy", "holds no points"),
            ("nan.npy", "point 1 has y = NaN"),
            ("truncated.npy", "truncated: 2 points need"),
            ("wrapping.npy", "its shape is more than a file can hold"),
            ("longer.npy", "5 bytes follow the last of 2 points"),
            ("header.npy", "not a readable .npy file"),
            ("noise.npy", "not a readable .npy file"),
        ];
        for (name, expected) in cases {
            let message = refusal(&path(name));
            assert!(message.contains(expected) && message.contains(name), "{name}: {message}");
        }
    }
}

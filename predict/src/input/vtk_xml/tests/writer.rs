//! Writes small files in every way in which numbers may be written.

use std::fmt::Write as _;
use std::io::Write as _;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::write::ZlibEncoder;
use lzma_rust2::{XzOptions, XzWriter};

pub(crate) use crate::input::vtk_xml::header::Codec;

/// Where the numbers stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Ascii,
    Inline,
    AppendedRaw,
    AppendedBase64,
}

pub(crate) const MODES: [Mode; 4] = [Mode::Ascii, Mode::Inline, Mode::AppendedRaw, Mode::AppendedBase64];

/// How a file is written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Style {
    pub mode: Mode,
    pub codec: Option<Codec>,
    /// Bytes of the numbers in front of arrays.
    pub word: usize,
    pub big_endian: bool,
    /// Bytes of a compressed block.
    pub block: usize,
    /// Letters of a line of base64; VTK writes one line, others do not.
    pub line: Option<usize>,
}

pub(crate) const PLAIN: Style =
    Style { mode: Mode::Ascii, codec: None, word: 4, big_endian: false, block: 32, line: None };

/// Numbers of a kind that VTK knows.
pub(crate) enum Values {
    F32(Vec<f32>),
    F64(Vec<f64>),
    I64(Vec<i64>),
    I32(Vec<i32>),
    U8(Vec<u8>),
}

impl Values {
    fn kind(&self) -> &'static str {
        match self {
            Self::F32(_) => "Float32",
            Self::F64(_) => "Float64",
            Self::I64(_) => "Int64",
            Self::I32(_) => "Int32",
            Self::U8(_) => "UInt8",
        }
    }

    fn text(&self) -> String {
        fn join<T: ToString>(values: &[T]) -> String {
            let words: Vec<_> = values.iter().map(ToString::to_string).collect();
            words.chunks(6).map(|line| line.join(" ")).collect::<Vec<_>>().join("\n          ")
        }
        match self {
            Self::F32(values) => join(values),
            Self::F64(values) => join(values),
            Self::I64(values) => join(values),
            Self::I32(values) => join(values),
            Self::U8(values) => join(values),
        }
    }

    fn bytes(&self, big: bool) -> Vec<u8> {
        fn turned<const N: usize>(values: impl Iterator<Item = [u8; N]>, big: bool) -> Vec<u8> {
            values
                .flat_map(|mut bytes| {
                    if big {
                        bytes.reverse();
                    }
                    bytes
                })
                .collect()
        }
        match self {
            Self::F32(values) => turned(values.iter().map(|value| value.to_le_bytes()), big),
            Self::F64(values) => turned(values.iter().map(|value| value.to_le_bytes()), big),
            Self::I64(values) => turned(values.iter().map(|value| value.to_le_bytes()), big),
            Self::I32(values) => turned(values.iter().map(|value| value.to_le_bytes()), big),
            Self::U8(values) => values.clone(),
        }
    }
}

/// A file that grows.
pub(crate) struct Writer {
    style: Style,
    xml: String,
    appended: Vec<u8>,
}

impl Writer {
    /// Begins a file with data of a type.
    pub(crate) fn new(style: Style, kind: &str) -> Self {
        let order = if style.big_endian { "BigEndian" } else { "LittleEndian" };
        let compressor = match style.codec {
            None => "",
            Some(Codec::Zlib) => r#" compressor="vtkZLibDataCompressor""#,
            Some(Codec::Lz4) => r#" compressor="vtkLZ4DataCompressor""#,
            Some(Codec::Lzma) => r#" compressor="vtkLZMADataCompressor""#,
        };
        let word = 8 * style.word;
        let mut xml = String::from("<?xml version=\"1.0\"?>\n<!-- a comment with <DataArray> in it -->\n");
        let _ = writeln!(
            xml,
            r#"<VTKFile type="{kind}" version="1.0" byte_order="{order}" header_type="UInt{word}"{compressor}><{kind}>"#
        );
        Self { style, xml, appended: Vec::new() }
    }

    /// Adds XML as it is.
    pub(crate) fn tag(&mut self, text: &str) -> &mut Self {
        self.xml += text;
        self.xml.push('\n');
        self
    }

    /// Adds an array.
    pub(crate) fn array(&mut self, name: &str, components: usize, values: &Values) -> &mut Self {
        let kind = values.kind();
        let head = format!(r#"<DataArray type="{kind}" Name="{name}" NumberOfComponents="{components}""#);
        match self.style.mode {
            Mode::Ascii => {
                let key = r#"<InformationKey name="L2_NORM_RANGE"><Value index="0">0</Value></InformationKey>"#;
                let text = values.text();
                let _ = writeln!(self.xml, "{head} format=\"ascii\" RangeMin=\"1>0\">\n   {text}\n  {key}</DataArray>");
            }
            Mode::Inline => {
                let text = self.base64(values);
                let _ = writeln!(self.xml, "{head} format=\"binary\">\n   {text}\n  </DataArray>");
            }
            Mode::AppendedRaw | Mode::AppendedBase64 => {
                let offset = self.appended.len();
                let _ = writeln!(self.xml, "{head} format=\"appended\" offset=\"{offset}\"/>");
                let data = match self.style.mode {
                    Mode::AppendedRaw => self.encoded(values).concat(),
                    _ => self.base64(values).into_bytes(),
                };
                self.appended.extend(data);
            }
        }
        self
    }

    /// The whole file.
    pub(crate) fn finish(&mut self, kind: &str) -> Vec<u8> {
        let mut bytes = std::mem::take(&mut self.xml).into_bytes();
        bytes.extend(format!("</{kind}>\n").bytes());
        if matches!(self.style.mode, Mode::AppendedRaw | Mode::AppendedBase64) {
            let encoding = if self.style.mode == Mode::AppendedRaw { "raw" } else { "base64" };
            bytes.extend(format!("<AppendedData encoding=\"{encoding}\">\n   _").bytes());
            bytes.append(&mut self.appended);
            bytes.extend(b"\n  </AppendedData>\n");
        }
        bytes.extend(b"</VTKFile>\n");
        bytes
    }

    fn word(&self, number: usize) -> Vec<u8> {
        let bytes = (number as u64).to_be_bytes();
        let mut bytes = bytes[8 - self.style.word..].to_vec();
        if !self.style.big_endian {
            bytes.reverse();
        }
        bytes
    }

    /// Header and numbers: one run of bytes, or two where they are compressed.
    fn encoded(&self, values: &Values) -> Vec<Vec<u8>> {
        let bytes = values.bytes(self.style.big_endian);
        let Some(codec) = self.style.codec else { return vec![[self.word(bytes.len()), bytes].concat()] };
        let blocks: Vec<_> = bytes.chunks(self.style.block).map(|block| pack(codec, block)).collect();
        let last = bytes.len() % self.style.block;
        let head = [blocks.len(), self.style.block, last].into_iter().chain(blocks.iter().map(Vec::len));
        vec![head.flat_map(|number| self.word(number)).collect(), blocks.concat()]
    }

    fn base64(&self, values: &Values) -> String {
        let text: String = self.encoded(values).iter().map(|bytes| STANDARD.encode(bytes)).collect();
        let Some(line) = self.style.line else { return text };
        let letters: Vec<char> = text.chars().collect();
        letters.chunks(line).map(|line| line.iter().collect::<String>()).collect::<Vec<_>>().join("\r\n ")
    }
}

fn pack(codec: Codec, bytes: &[u8]) -> Vec<u8> {
    match codec {
        Codec::Lz4 => lz4_flex::block::compress(bytes),
        Codec::Zlib => {
            let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        }
        Codec::Lzma => {
            let mut encoder = XzWriter::new(Vec::new(), XzOptions::with_preset(1)).unwrap();
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        }
    }
}

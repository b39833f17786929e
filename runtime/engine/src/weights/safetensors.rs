//! The safetensors header: parsed and checked once, against the file's own size. Every rule below is one that a
//! truncated, overwritten or hostile file breaks; after [`Header::parse`] a tensor's bytes are plain slicing.

use crate::weights::unique::Pairs;
use serde::Deserialize;
use std::collections::HashMap;
use std::ops::Range;
use thiserror::Error;

/// No real header is longer; a longer one is not even parsed.
pub const HEADER_LIMIT: u64 = 100 << 20;
/// Bytes of the little-endian header length that opens the file.
const LENGTH_BYTES: usize = 8;
/// Dimensions of a tensor at most.
const MAX_RANK: usize = 8;

/// What a safetensors header breaks.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum HeaderRule {
    /// Not even a header length.
    #[error(
        "the file has {bytes} bytes, too few for a safetensors header; it is cut short, download it again"
    )]
    TooShort {
        /// Bytes in the file.
        bytes: usize,
    },
    /// The header is said to be longer than the file, or than any real header.
    #[error(
        "the header says that it is {length} bytes long, but the file has {file} and a header at most {HEADER_LIMIT}; the file is cut short or no safetensors file"
    )]
    HeaderLength {
        /// Said length.
        length: u64,
        /// Bytes in the file.
        file: usize,
    },
    /// The header is no JSON object of tensors.
    #[error("the header is not a JSON object of tensors ({message}); download the file again")]
    NotTensors {
        /// What the parser said.
        message: String,
    },
    /// Two entries have one name.
    #[error("tensor {tensor:?} is listed twice")]
    Duplicate {
        /// The name.
        tensor: String,
    },
    /// A number format that safetensors does not have.
    #[error("tensor {tensor:?} has the unknown number format {dtype:?}")]
    UnknownDtype {
        /// The tensor.
        tensor: String,
        /// As spelled in the header.
        dtype: String,
    },
    /// More dimensions than any weight has.
    #[error("tensor {tensor:?} has {rank} dimensions; at most {MAX_RANK} are read")]
    Rank {
        /// The tensor.
        tensor: String,
        /// Its dimensions.
        rank: usize,
    },
    /// The byte range ends before it begins.
    #[error("tensor {tensor:?} begins at byte {begin} of the data and ends before it, at {end}")]
    Reversed {
        /// The tensor.
        tensor: String,
        /// Said begin.
        begin: u64,
        /// Said end.
        end: u64,
    },
    /// The byte range ends behind the file's end.
    #[error(
        "tensor {tensor:?} ends at byte {end} of the data, but the file holds only {available}; it is cut short, download it again"
    )]
    PastEnd {
        /// The tensor.
        tensor: String,
        /// Said end.
        end: u64,
        /// Bytes of data in the file.
        available: usize,
    },
    /// The byte range is not as long as the shape and the number format make it.
    #[error("tensor {tensor:?} has {found} bytes, but its shape {shape:?} of {dtype} takes {}", expected.map_or("more than can be counted".to_owned(), |n| n.to_string()))]
    Size {
        /// The tensor.
        tensor: String,
        /// Its shape.
        shape: Vec<u64>,
        /// Its number format.
        dtype: Dtype,
        /// Bytes that these take; none if that overflows.
        expected: Option<u64>,
        /// Bytes in the range.
        found: u64,
    },
    /// Two byte ranges share bytes.
    #[error("tensors {first:?} and {second:?} overlap")]
    Overlap {
        /// The one that begins first.
        first: String,
        /// The other.
        second: String,
    },
    /// Bytes that belong to no tensor. The format forbids them: they mean that offsets and data do not match.
    #[error("{bytes} bytes of data before {} belong to no tensor; the header does not fit the data", before.as_ref().map_or("the end".to_owned(), |name| format!("tensor {name:?}")))]
    Gap {
        /// How many.
        bytes: u64,
        /// The tensor behind them; none at the file's end.
        before: Option<String>,
    },
}

/// A number format of safetensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dtype {
    /// bfloat16.
    Bf16,
    /// IEEE half precision.
    F16,
    /// IEEE single precision.
    F32,
    /// Eight bits with an exponent of four (OCP E4M3); a matrix of them comes with scales, see
    /// [`Checkpoint::tensor`](super::shard::Checkpoint::tensor).
    Fp8,
    /// Any other: its spelling and its bits per value. Such a tensor may lie in the file but cannot be a weight.
    Other(&'static str, u64),
}

/// Formats beside those that weights may have.
const OTHERS: [(&str, u64); 18] = [
    ("BOOL", 8),
    ("F4", 4),
    ("F6_E2M3", 6),
    ("F6_E3M2", 6),
    ("U8", 8),
    ("I8", 8),
    ("F8_E5M2", 8),
    ("F8_E8M0", 8),
    ("F8_E4M3FNUZ", 8),
    ("F8_E5M2FNUZ", 8),
    ("I16", 16),
    ("U16", 16),
    ("I32", 32),
    ("U32", 32),
    ("C64", 64),
    ("F64", 64),
    ("I64", 64),
    ("U64", 64),
];

impl Dtype {
    fn named(name: &str) -> Option<Dtype> {
        match name {
            "BF16" => Some(Dtype::Bf16),
            "F16" => Some(Dtype::F16),
            "F32" => Some(Dtype::F32),
            "F8_E4M3" => Some(Dtype::Fp8),
            other => OTHERS.iter().find(|(known, _)| *known == other).map(|&(n, b)| Dtype::Other(n, b)),
        }
    }

    /// Bits of one value.
    pub fn bits(self) -> u64 {
        match self {
            Dtype::Bf16 | Dtype::F16 => 16,
            Dtype::F32 => 32,
            Dtype::Fp8 => 8,
            Dtype::Other(_, bits) => bits,
        }
    }
}

impl std::fmt::Display for Dtype {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Dtype::Bf16 => "BF16",
            Dtype::F16 => "F16",
            Dtype::F32 => "F32",
            Dtype::Fp8 => "F8_E4M3",
            Dtype::Other(name, _) => name,
        })
    }
}

/// One tensor of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// How its values are written.
    pub dtype: Dtype,
    /// Its dimensions, outermost first.
    pub shape: Vec<usize>,
    /// Its bytes, counted from the start of the file.
    pub bytes: Range<usize>,
}

/// A checked header.
#[derive(Debug, Default)]
pub struct Header {
    /// Every tensor by name.
    pub tensors: HashMap<String, Entry>,
    /// Bytes before the data: length and JSON.
    pub bytes: usize,
}

/// An entry as written.
#[derive(Deserialize)]
struct Written {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

impl Header {
    /// Reads and checks the header of a whole file's bytes.
    pub fn parse(file: &[u8]) -> Result<Header, HeaderRule> {
        let Some((length, rest)) = file.split_first_chunk::<LENGTH_BYTES>() else {
            return Err(HeaderRule::TooShort { bytes: file.len() });
        };
        let length = u64::from_le_bytes(*length);
        if length > HEADER_LIMIT || length > rest.len() as u64 {
            return Err(HeaderRule::HeaderLength { length, file: file.len() });
        }
        let (json, payload) = rest.split_at(length as usize);
        let Pairs(written) = serde_json::from_slice::<Pairs<Written>>(json)
            .map_err(|e| HeaderRule::NotTensors { message: e.to_string() })?;

        let start = LENGTH_BYTES + json.len();
        let mut tensors = HashMap::with_capacity(written.len());
        for (name, entry) in written {
            let entry = check(&name, &entry, start, payload.len())?;
            if tensors.insert(name.clone(), entry).is_some() {
                return Err(HeaderRule::Duplicate { tensor: name });
            }
        }
        check_cover(&tensors, start, file.len())?;
        Ok(Header { tensors, bytes: start })
    }
}

fn check(name: &str, written: &Written, start: usize, available: usize) -> Result<Entry, HeaderRule> {
    let tensor = || name.to_owned();
    let dtype = Dtype::named(&written.dtype)
        .ok_or_else(|| HeaderRule::UnknownDtype { tensor: tensor(), dtype: written.dtype.clone() })?;
    if written.shape.len() > MAX_RANK {
        return Err(HeaderRule::Rank { tensor: tensor(), rank: written.shape.len() });
    }
    let (begin, end) = written.data_offsets;
    if begin > end {
        return Err(HeaderRule::Reversed { tensor: tensor(), begin, end });
    }
    if end > available as u64 {
        return Err(HeaderRule::PastEnd { tensor: tensor(), end, available });
    }
    let expected = byte_size(&written.shape, dtype);
    if expected != Some(end - begin) {
        let shape = written.shape.clone();
        return Err(HeaderRule::Size { tensor: tensor(), shape, dtype, expected, found: end - begin });
    }
    // A zero among the dimensions may stand beside one that fits no usize.
    let shape =
        written.shape.iter().map(|&n| usize::try_from(n)).collect::<Result<_, _>>().map_err(|_| {
            HeaderRule::Size {
                tensor: tensor(),
                shape: written.shape.clone(),
                dtype,
                expected: None,
                found: 0,
            }
        })?;
    Ok(Entry { dtype, shape, bytes: start + begin as usize..start + end as usize })
}

/// Bytes of a tensor; none if the count overflows or ends within a byte.
fn byte_size(shape: &[u64], dtype: Dtype) -> Option<u64> {
    let values = shape.iter().try_fold(1u64, |n, &d| n.checked_mul(d))?;
    let bits = values.checked_mul(dtype.bits())?;
    bits.is_multiple_of(8).then_some(bits / 8)
}

/// The tensors lie one behind the other, from the header's end to the file's end.
fn check_cover(tensors: &HashMap<String, Entry>, start: usize, end: usize) -> Result<(), HeaderRule> {
    let mut in_order: Vec<(&String, &Range<usize>)> = tensors.iter().map(|(n, e)| (n, &e.bytes)).collect();
    in_order.sort_by_key(|(name, bytes)| (bytes.start, bytes.end, *name));
    let (mut at, mut last) = (start, "");
    for (name, bytes) in in_order {
        if bytes.start < at {
            return Err(HeaderRule::Overlap { first: last.to_owned(), second: name.clone() });
        }
        if bytes.start > at {
            return Err(HeaderRule::Gap { bytes: (bytes.start - at) as u64, before: Some(name.clone()) });
        }
        (at, last) = (bytes.end, name);
    }
    if at < end {
        return Err(HeaderRule::Gap { bytes: (end - at) as u64, before: None });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(json: &str, payload: usize) -> Vec<u8> {
        let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(json.as_bytes());
        bytes.resize(bytes.len() + payload, 0);
        bytes
    }

    #[test]
    fn a_good_header_gives_ranges_in_the_file() {
        let json = r#"{"__metadata__":{"format":"pt"},"a":{"dtype":"BF16","shape":[2,3],"data_offsets":[0,12]},"b":{"dtype":"F32","shape":[],"data_offsets":[12,16]}}   "#;
        let header = Header::parse(&file(json, 16)).unwrap();
        let start = 8 + json.len();
        assert_eq!(header.bytes, start);
        assert_eq!(header.tensors["a"].bytes, start..start + 12);
        assert_eq!(header.tensors["a"].shape, [2, 3]);
        assert_eq!(header.tensors["b"].bytes, start + 12..start + 16);
    }

    #[test]
    fn an_empty_header_is_a_file_of_no_tensors() {
        assert!(Header::parse(&file("{}", 0)).unwrap().tensors.is_empty());
        assert_eq!(Header::parse(&file("{}", 1)).unwrap_err(), HeaderRule::Gap { bytes: 1, before: None });
    }

    #[test]
    fn sizes_are_counted_without_overflow() {
        assert_eq!(byte_size(&[u64::MAX, 2], Dtype::F32), None);
        assert_eq!(byte_size(&[1 << 32, 1 << 31], Dtype::Bf16), None);
        assert_eq!(byte_size(&[3], Dtype::Other("F4", 4)), None);
        assert_eq!(byte_size(&[4], Dtype::Other("F4", 4)), Some(2));
    }
}

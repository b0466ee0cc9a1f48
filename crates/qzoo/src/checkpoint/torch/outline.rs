//! A look at a pickle without making its values: whether it only does what a file of tensors needs, and which texts it holds in which order.

use std::io::{self, BufRead, Read};

/// The longest pickle that is looked at, in bytes.
const MOST_BYTES: u64 = 64 << 20;
/// The longest text, in bytes: names of tensors are far shorter.
const LONGEST_TEXT: u32 = 1 << 20;
/// The longest name of a type, in bytes.
const LONGEST_NAME: u64 = 512;

/// What a pickle says.
#[derive(Debug, Default)]
pub(super) struct Outline {
    /// Its texts, in order.
    pub(super) texts: Vec<String>,
}

/// Why a pickle is refused.
#[derive(Debug)]
pub(super) struct Refusal {
    /// Byte of the pickle, or of the file where several pickles follow each other.
    pub(super) offset: u64,
    /// What stands there.
    pub(super) message: String,
}

/// Bytes with a running offset.
pub(super) struct Pickles<R> {
    bytes: R,
    offset: u64,
}

impl<R: BufRead> Pickles<R> {
    pub(super) fn new(bytes: R) -> Self {
        Pickles { bytes, offset: 0 }
    }

    /// Reads the next pickle up to its end.
    pub(super) fn next(&mut self) -> Result<Outline, Refusal> {
        let mut outline = Outline::default();
        let start = self.offset;
        loop {
            if self.offset - start > MOST_BYTES {
                return Err(self.refuse(self.offset, format!("a pickle is longer than {MOST_BYTES} bytes")));
            }
            let at = self.offset;
            let [code] = self.take()?;
            match code {
                b'.' => return Ok(outline),
                0x80 => self.version(at)?,
                b'c' => self.global(at)?,
                b'X' => {
                    let length = u32::from_le_bytes(self.take()?);
                    outline.texts.push(self.text(at, length)?);
                }
                b'U' => {
                    let [length] = self.take()?;
                    self.skip(at, u32::from(length))?;
                }
                b'T' => {
                    let length = u32::from_le_bytes(self.take()?);
                    self.skip(at, length)?;
                }
                0x8a => {
                    let [length] = self.take()?;
                    self.skip(at, u32::from(length))?;
                }
                _ => {
                    let Some(length) = argument(code) else {
                        let message = format!(
                            "the pickle instruction {code:#04x} does not occur in files of tensors; save the state dict with torch.save and its default protocol"
                        );
                        return Err(self.refuse(at, message));
                    };
                    self.skip(at, length)?;
                }
            }
        }
    }

    fn version(&mut self, at: u64) -> Result<(), Refusal> {
        match self.take()? {
            [0..=2] => Ok(()),
            [version] => {
                let message =
                    format!("pickle protocol {version} is not read; save the file with torch.save's default protocol");
                Err(self.refuse(at, message))
            }
        }
    }

    /// A type or function that the pickle names.
    fn global(&mut self, at: u64) -> Result<(), Refusal> {
        let (module, name) = (self.line(at)?, self.line(at)?);
        if is_known(&module, &name) {
            return Ok(());
        }
        let message = format!(
            "names the Python object `{module}.{name}`, which a file of tensors does not need; nothing was executed. \
             If you trust the file, load it in PyTorch and save model.state_dict() alone"
        );
        Err(self.refuse(at, message))
    }

    fn line(&mut self, at: u64) -> Result<String, Refusal> {
        let mut line = Vec::new();
        let read = (&mut self.bytes).take(LONGEST_NAME).read_until(b'\n', &mut line);
        self.offset += read.map_err(|error| self.failed(&error))? as u64;
        match line.pop() {
            Some(b'\n') => Ok(String::from_utf8_lossy(&line).escape_debug().to_string()),
            _ => Err(self.refuse(at, "the name of a type is cut or too long".into())),
        }
    }

    fn text(&mut self, at: u64, length: u32) -> Result<String, Refusal> {
        if length > LONGEST_TEXT {
            return Err(self.refuse(at, format!("a text of {length} bytes is over the limit of {LONGEST_TEXT}")));
        }
        let mut text = vec![0; length as usize];
        self.fill(&mut text)?;
        String::from_utf8(text).map_err(|_| self.refuse(at, "a text is not UTF-8".into()))
    }

    fn skip(&mut self, at: u64, length: u32) -> Result<(), Refusal> {
        if length > LONGEST_TEXT {
            return Err(self.refuse(at, format!("a value of {length} bytes is over the limit of {LONGEST_TEXT}")));
        }
        let mut buffer = [0; 256];
        let mut left = length as usize;
        while left > 0 {
            let step = left.min(buffer.len());
            self.fill(&mut buffer[..step])?;
            left -= step;
        }
        Ok(())
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], Refusal> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), Refusal> {
        self.bytes.read_exact(buffer).map_err(|error| self.failed(&error))?;
        self.offset += buffer.len() as u64;
        Ok(())
    }

    fn failed(&self, error: &io::Error) -> Refusal {
        let message = match error.kind() {
            io::ErrorKind::UnexpectedEof => "the pickle is cut".to_string(),
            _ => format!("cannot read on: {error}"),
        };
        self.refuse(self.offset, message)
    }

    fn refuse(&self, offset: u64, message: String) -> Refusal {
        Refusal { offset, message }
    }
}

/// Bytes of the argument of an instruction of fixed size; none for those that files of tensors do not have.
fn argument(code: u8) -> Option<u32> {
    Some(match code {
        // Stack and memo, containers, None, tuples, booleans, calls and persistent identifiers.
        b'(' | b')' | b']' | b'}' | b'a' | b'e' | b's' | b'u' | b't' | b'l' | b'd' | b'0' | b'1' | b'2' => 0,
        b'N' | b'Q' | b'R' | b'b' | 0x81 | 0x85..=0x89 => 0,
        b'K' | b'h' | b'q' => 1,
        b'M' => 2,
        b'J' | b'j' | b'r' => 4,
        b'G' => 8,
        _ => return None,
    })
}

/// Whether a type is one of those that `torch.load(weights_only=True)` knows by itself, or a NumPy number.
fn is_known(module: &str, name: &str) -> bool {
    let storage = || name.strip_suffix("Storage").is_some_and(|kind| KINDS.contains(&kind));
    match module {
        "collections" => name == "OrderedDict",
        "torch._utils" => name.starts_with("_rebuild_tensor") || name.starts_with("_rebuild_parameter"),
        "torch" => storage() || ELEMENTS.contains(&name) || matches!(name, "Size" | "device"),
        "torch.storage" => matches!(name, "TypedStorage" | "UntypedStorage"),
        "torch.nn.parameter" => name == "Parameter",
        "numpy" => name == "dtype",
        "numpy.core.multiarray" | "numpy._core.multiarray" => name == "scalar",
        "_codecs" => name == "encode",
        _ => false,
    }
}

/// Storages are named after these.
const KINDS: &[&str] =
    &["Double", "Float", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool", "Untyped"];
/// Element types.
const ELEMENTS: &[&str] = &[
    "float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "uint16", "uint32",
    "uint64", "bool",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn outline(bytes: &[u8]) -> Result<Vec<String>, String> {
        Pickles::new(bytes).next().map(|outline| outline.texts).map_err(|refusal| refusal.message)
    }

    #[test]
    fn texts_come_in_order_and_foreign_types_are_named() {
        assert_eq!(
            outline(b"\x80\x02}(X\x01\x00\x00\x00bK\x01X\x01\x00\x00\x00aK\x02u."),
            Ok(vec!["b".into(), "a".into()])
        );
        let message = outline(b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00ls\x85R.").unwrap_err();
        assert!(message.contains("`os.system`") && message.contains("nothing was executed"), "{message}");
        assert!(outline(b"\x80\x02ctorch\nload\n.").unwrap_err().contains("`torch.load`"));
        assert!(outline(b"\x80\x02cbuiltins\neval\n.").unwrap_err().contains("`builtins.eval`"));
        assert!(outline(b"\x80\x02ccollections\nOrderedDict\n)R.").is_ok());
    }

    #[test]
    fn everything_else_is_refused() {
        for (bytes, expected) in [
            (&b""[..], "cut"),
            (b"\x80\x04.", "protocol 4"),
            (b"\x80\x02X\xff\xff\xff\xffa", "limit"),
            (b"\x80\x02X\x05\x00\x00\x00a", "cut"),
            (b"\x80\x02X\x01\x00\x00\x00\xff.", "UTF-8"),
            (b"\x80\x02\x93.", "instruction 0x93"),
            (b"\x80\x02i", "instruction 0x69"),
            (b"\x80\x02cos", "cut"),
        ] {
            let message = outline(bytes).unwrap_err();
            assert!(message.contains(expected), "{bytes:?}: {message}");
        }
    }

    #[test]
    fn pickles_follow_each_other() {
        let mut pickles = Pickles::new(&b"\x80\x02K\x01.\x80\x02cx\ny\n."[..]);
        assert!(pickles.next().is_ok());
        assert_eq!(pickles.next().unwrap_err().offset, 7);
    }
}

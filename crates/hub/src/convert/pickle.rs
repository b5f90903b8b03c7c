//! A reader of Python's pickles that executes nothing.
//!
//! A pickle is a program for a small stack machine, and two of its instructions call whatever Python
//! object the file names. Here a call is only written down: the reader turns the stream into a flat
//! table of values, in which each value refers to others by number. So nothing can run, a value that the
//! stream uses a thousand times costs one entry, and a value that contains itself is no trouble. Text and
//! bytes stay in the input. Every instruction adds at most one entry, and their number is limited.

use std::collections::HashMap;

use crate::names::printable;

/// Far above any state dict (some thirty instructions a tensor); bounds memory at a few hundred MB.
const MAX_INSTRUCTIONS: usize = 1 << 22;

/// Modules whose functions act on the machine when Python loads a pickle that names them.
const FORBIDDEN_MODULES: &[&str] = &[
    "asyncio",
    "code",
    "codeop",
    "commands",
    "ctypes",
    "importlib",
    "multiprocessing",
    "nt",
    "os",
    "pdb",
    "posix",
    "pty",
    "runpy",
    "shutil",
    "signal",
    "socket",
    "subprocess",
    "sys",
    "tempfile",
    "threading",
    "timeit",
    "urllib",
    "webbrowser",
];
/// The builtins that are types of plain values; the others include `eval` and `open`.
const PLAIN_BUILTINS: &[&str] = &[
    "bool",
    "bytearray",
    "bytes",
    "complex",
    "dict",
    "float",
    "frozenset",
    "int",
    "list",
    "long",
    "object",
    "range",
    "set",
    "slice",
    "str",
    "tuple",
    "type",
    "unicode",
    "xrange",
];

/// A value's number in the table.
pub(crate) type Id = usize;

/// One value of a pickle.
#[derive(Debug)]
pub(crate) enum Value<'a> {
    None,
    Bool(bool),
    Int(i64),
    /// More than 64 bits: little-endian two's complement.
    BigInt(&'a [u8]),
    Float(f64),
    Text(&'a str),
    Bytes(&'a [u8]),
    List(Vec<Id>),
    Tuple(Vec<Id>),
    Set,
    /// In the order of insertion; a later entry with the same key counts.
    Dict(Vec<(Id, Id)>),
    /// A class or a function, by name.
    Global {
        module: &'a str,
        name: &'a str,
    },
    /// What Python would have called, and with what. It was not.
    Call {
        callee: Id,
        args: Id,
    },
    /// A reference to something outside of the pickle.
    Persistent(Id),
}

/// Why a pickle cannot be read.
#[derive(Debug)]
pub(crate) enum Fault {
    /// At this byte.
    At { at: usize, problem: String },
    /// It names something that acts on the machine.
    Forbidden { class: String },
}

/// A pickle that has been read.
#[derive(Debug)]
pub(crate) struct Pickle<'a> {
    values: Vec<Value<'a>>,
    root: Id,
    /// Bytes up to and with the end mark.
    pub(crate) length: usize,
}

impl<'a> Pickle<'a> {
    /// Reads the pickle at the start of `input`, which may go on after its end.
    pub(crate) fn parse(input: &'a [u8]) -> Result<Self, Fault> {
        let mut machine = Machine {
            input,
            at: 0,
            values: Vec::new(),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
        };
        let root = machine.run()?;
        Ok(Self { values: machine.values, root, length: machine.at })
    }

    pub(crate) fn root(&self) -> Id {
        self.root
    }

    pub(crate) fn get(&self, id: Id) -> &Value<'a> {
        self.values.get(id).unwrap_or(&Value::None)
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &Value<'a>> {
        self.values.iter()
    }
}

struct Machine<'a> {
    input: &'a [u8],
    at: usize,
    values: Vec<Value<'a>>,
    stack: Vec<Id>,
    /// Heights of the stack at the open marks.
    marks: Vec<usize>,
    memo: HashMap<usize, Id>,
}

impl<'a> Machine<'a> {
    fn run(&mut self) -> Result<Id, Fault> {
        for _ in 0..MAX_INSTRUCTIONS {
            let start = self.at;
            let [opcode] = self.array()?;
            if opcode == b'.' {
                return self.pop();
            }
            if !self.step(opcode)? {
                self.at = start;
                return Err(self.fault(format!(
                    "instruction {:?} ({opcode:#04x}) is none that PyTorch writes",
                    char::from(opcode)
                )));
            }
        }
        Err(self.fault(format!("more than {MAX_INSTRUCTIONS} instructions")))
    }

    fn step(&mut self, opcode: u8) -> Result<bool, Fault> {
        match opcode {
            // The protocol's number and the frames' sizes decide nothing.
            0x80 => drop(self.array::<1>()?),
            0x95 => drop(self.array::<8>()?),
            b'(' => self.marks.push(self.stack.len()),
            b'0' => drop(self.pop()?),
            b'1' => drop(self.pop_mark()?),
            b'2' => {
                let top = self.top()?;
                self.stack.push(top);
            }
            b'N' => self.push(Value::None),
            0x88 => self.push(Value::Bool(true)),
            0x89 => self.push(Value::Bool(false)),
            b'J' => {
                let value = i32::from_le_bytes(self.array()?);
                self.push(Value::Int(value.into()));
            }
            b'K' => {
                let [value] = self.array()?;
                self.push(Value::Int(value.into()));
            }
            b'M' => {
                let value = u16::from_le_bytes(self.array()?);
                self.push(Value::Int(value.into()));
            }
            0x8a => {
                let length = self.length::<1>()?;
                self.integer(length)?;
            }
            0x8b => {
                let length = self.length::<4>()?;
                self.integer(length)?;
            }
            b'G' => {
                let value = f64::from_be_bytes(self.array()?);
                self.push(Value::Float(value));
            }
            0x8c => self.text::<1>()?,
            b'X' => self.text::<4>()?,
            0x8d => self.text::<8>()?,
            b'U' => self.old_text::<1>()?,
            b'T' => self.old_text::<4>()?,
            b'C' => self.bytes::<1>()?,
            b'B' => self.bytes::<4>()?,
            0x8e | 0x96 => self.bytes::<8>()?,
            b']' => self.push(Value::List(Vec::new())),
            b')' => self.push(Value::Tuple(Vec::new())),
            b'}' => self.push(Value::Dict(Vec::new())),
            0x8f => self.push(Value::Set),
            b'l' => {
                let items = self.pop_mark()?;
                self.push(Value::List(items));
            }
            b't' => {
                let items = self.pop_mark()?;
                self.push(Value::Tuple(items));
            }
            b'd' => {
                let items = self.pop_mark()?;
                let pairs = self.pairs(&items)?;
                self.push(Value::Dict(pairs));
            }
            0x91 => {
                self.pop_mark()?;
                self.push(Value::Set);
            }
            0x85 => self.tuple::<1>()?,
            0x86 => self.tuple::<2>()?,
            0x87 => self.tuple::<3>()?,
            b'a' => {
                let item = self.pop()?;
                self.extend(&[item])?;
            }
            b'e' => {
                let items = self.pop_mark()?;
                self.extend(&items)?;
            }
            // What a set holds is of no use here.
            0x90 => drop(self.pop_mark()?),
            b's' => {
                let value = self.pop()?;
                let key = self.pop()?;
                self.set_items(&[key, value])?;
            }
            b'u' => {
                let items = self.pop_mark()?;
                self.set_items(&items)?;
            }
            b'c' => {
                let module = self.line()?;
                let name = self.line()?;
                self.global(module, name)?;
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let (Some(Value::Text(module)), Some(Value::Text(name))) =
                    (self.values.get(module), self.values.get(name))
                else {
                    return Err(self.fault("a class whose name is not text".to_owned()));
                };
                self.global(module, name)?;
            }
            b'R' | 0x81 => {
                let (args, callee) = (self.pop()?, self.pop()?);
                self.call(callee, args);
            }
            0x92 => {
                let (_keywords, args, callee) = (self.pop()?, self.pop()?, self.pop()?);
                self.call(callee, args);
            }
            // What an object's state would be: dictionaries keep their entries, and other objects are
            // only ever named.
            b'b' => {
                self.pop()?;
                self.top()?;
            }
            b'Q' => {
                let id = self.pop()?;
                self.push(Value::Persistent(id));
            }
            b'h' => {
                let key = self.length::<1>()?;
                self.recall(key)?;
            }
            b'j' => {
                let key = self.length::<4>()?;
                self.recall(key)?;
            }
            b'q' => {
                let key = self.length::<1>()?;
                self.memorise(key)?;
            }
            b'r' => {
                let key = self.length::<4>()?;
                self.memorise(key)?;
            }
            0x94 => self.memorise(self.memo.len())?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn fault(&self, problem: String) -> Fault {
        Fault::At { at: self.at, problem }
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Fault> {
        let rest = self.input.get(self.at..).unwrap_or_default();
        let Some(taken) = rest.get(..length) else {
            return Err(
                self.fault(format!("expected {length} more bytes, got {}: it is truncated", rest.len()))
            );
        };
        self.at += length;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    /// A little-endian length of `N` bytes.
    fn length<const N: usize>(&mut self) -> Result<usize, Fault> {
        let value = self.array::<N>()?.iter().rev().fold(0u64, |value, &byte| value << 8 | u64::from(byte));
        // A length that this machine cannot address is longer than any input.
        Ok(usize::try_from(value).unwrap_or(usize::MAX))
    }

    fn line(&mut self) -> Result<&'a str, Fault> {
        let rest = self.input.get(self.at..).unwrap_or_default();
        let Some(length) = rest.iter().position(|&byte| byte == b'\n') else {
            return Err(self.fault("a class's name has no end: it is truncated".to_owned()));
        };
        let line = self.take(length + 1)?;
        let line =
            std::str::from_utf8(line).map_err(|_| self.fault("a class's name is not UTF-8".to_owned()))?;
        Ok(line.trim_end_matches(['\n', '\r']))
    }

    fn push(&mut self, value: Value<'a>) {
        self.stack.push(self.values.len());
        self.values.push(value);
    }

    fn pop(&mut self) -> Result<Id, Fault> {
        let floor = self.marks.last().copied().unwrap_or(0);
        match self.stack.pop() {
            Some(id) if self.stack.len() >= floor => Ok(id),
            _ => Err(self.fault("the stack is empty where a value should be".to_owned())),
        }
    }

    fn top(&self) -> Result<Id, Fault> {
        self.stack
            .last()
            .copied()
            .ok_or_else(|| self.fault("the stack is empty where a value should be".to_owned()))
    }

    fn pop_mark(&mut self) -> Result<Vec<Id>, Fault> {
        let mark = self.marks.pop().filter(|&mark| mark <= self.stack.len());
        let mark = mark.ok_or_else(|| self.fault("a list's end without its start".to_owned()))?;
        Ok(self.stack.split_off(mark))
    }

    fn tuple<const N: usize>(&mut self) -> Result<(), Fault> {
        let mut items = Vec::with_capacity(N);
        for _ in 0..N {
            items.push(self.pop()?);
        }
        items.reverse();
        self.push(Value::Tuple(items));
        Ok(())
    }

    fn integer(&mut self, length: usize) -> Result<(), Fault> {
        let bytes = self.take(length)?;
        let mut wide = match bytes.last() {
            Some(last) if last & 0x80 != 0 => [0xff; 8],
            _ => [0; 8],
        };
        let value = match wide.get_mut(..length) {
            Some(low) => {
                low.copy_from_slice(bytes);
                Value::Int(i64::from_le_bytes(wide))
            }
            None => Value::BigInt(bytes),
        };
        self.push(value);
        Ok(())
    }

    fn text<const N: usize>(&mut self) -> Result<(), Fault> {
        let length = self.length::<N>()?;
        let bytes = self.take(length)?;
        let text = std::str::from_utf8(bytes).map_err(|_| self.fault("a text is not UTF-8".to_owned()))?;
        self.push(Value::Text(text));
        Ok(())
    }

    /// Python 2's strings, which are text or bytes.
    fn old_text<const N: usize>(&mut self) -> Result<(), Fault> {
        let length = self.length::<N>()?;
        let bytes = self.take(length)?;
        self.push(std::str::from_utf8(bytes).map_or(Value::Bytes(bytes), Value::Text));
        Ok(())
    }

    fn bytes<const N: usize>(&mut self) -> Result<(), Fault> {
        let length = self.length::<N>()?;
        let bytes = self.take(length)?;
        self.push(Value::Bytes(bytes));
        Ok(())
    }

    fn global(&mut self, module: &'a str, name: &'a str) -> Result<(), Fault> {
        let root = module.split('.').next().unwrap_or_default();
        let forbidden = match root {
            "builtins" | "__builtin__" | "__builtins__" => !PLAIN_BUILTINS.contains(&name),
            _ => FORBIDDEN_MODULES.contains(&root),
        };
        if forbidden {
            return Err(Fault::Forbidden { class: printable(&format!("{module}.{name}")).into_owned() });
        }
        self.push(Value::Global { module, name });
        Ok(())
    }

    /// Writes a call down. The dictionaries of the standard library become plain ones.
    fn call(&mut self, callee: Id, args: Id) {
        let value = match self.values.get(callee) {
            Some(Value::Global { module: "collections", name: "OrderedDict" }) => {
                Value::Dict(self.initial(args))
            }
            Some(Value::Global { module: "collections", name: "defaultdict" }) => Value::Dict(Vec::new()),
            _ => Value::Call { callee, args },
        };
        self.push(value);
    }

    /// The entries that Python 2 passes to `OrderedDict`: a list of pairs.
    fn initial(&self, args: Id) -> Vec<(Id, Id)> {
        let items = |id: Id| match self.values.get(id) {
            Some(Value::List(items) | Value::Tuple(items)) => items.as_slice(),
            _ => &[],
        };
        let Some(&pairs) = items(args).first() else { return Vec::new() };
        items(pairs)
            .iter()
            .filter_map(|&pair| match *items(pair) {
                [key, value] => Some((key, value)),
                _ => None,
            })
            .collect()
    }

    fn pairs(&self, items: &[Id]) -> Result<Vec<(Id, Id)>, Fault> {
        let (pairs, []) = items.as_chunks::<2>() else {
            return Err(self.fault("a dictionary with a key but no value".to_owned()));
        };
        Ok(pairs.iter().map(|&[key, value]| (key, value)).collect())
    }

    fn extend(&mut self, items: &[Id]) -> Result<(), Fault> {
        let target = self.top()?;
        match self.values.get_mut(target) {
            Some(Value::List(list)) => list.extend_from_slice(items),
            // A subclass of list, of which only the name is kept.
            Some(Value::Call { .. }) => {}
            _ => return Err(self.fault("items for something that is no list".to_owned())),
        }
        Ok(())
    }

    fn set_items(&mut self, items: &[Id]) -> Result<(), Fault> {
        let pairs = self.pairs(items)?;
        let target = self.top()?;
        match self.values.get_mut(target) {
            Some(Value::Dict(entries)) => entries.extend(pairs),
            Some(Value::Call { .. }) => {}
            _ => return Err(self.fault("entries for something that is no dictionary".to_owned())),
        }
        Ok(())
    }

    fn recall(&mut self, key: usize) -> Result<(), Fault> {
        let id = self.memo.get(&key).copied();
        let id = id.ok_or_else(|| self.fault(format!("it recalls value {key}, which it never stored")))?;
        self.stack.push(id);
        Ok(())
    }

    fn memorise(&mut self, key: usize) -> Result<(), Fault> {
        let top = self.top()?;
        self.memo.insert(key, top);
        Ok(())
    }
}

use std::io::{Cursor, Write};

use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

/// A Python value, as far as checkpoints have such.
#[derive(Debug, Clone)]
pub enum Py {
    /// `None`.
    None,
    /// `True` or `False`.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// A float.
    Float(f64),
    /// A string.
    Text(String),
    /// A list.
    List(Vec<Py>),
    /// A tuple.
    Tuple(Vec<Py>),
    /// A dictionary.
    Dict(Vec<(Py, Py)>),
    /// A `collections.OrderedDict`.
    OrderedDict(Vec<(Py, Py)>),
    /// A class or a function, by module and name.
    Global(&'static str, &'static str),
    /// `module.name(*args)`, and a state to set where there is one.
    Object(&'static str, &'static str, Vec<Py>, Option<Box<Py>>),
    /// A reference to a storage of the file: class, key, elements.
    Storage(&'static str, String, usize),
    /// A reference to a part of a storage, as only the old container has: offset and elements of the part.
    StorageView(Box<Py>, usize, usize),
}

impl Py {
    /// A string.
    pub fn text(text: &str) -> Self {
        Self::Text(text.to_owned())
    }

    /// A dictionary with strings for keys.
    pub fn dict<'a>(entries: impl IntoIterator<Item = (&'a str, Py)>) -> Self {
        Self::Dict(entries.into_iter().map(|(key, value)| (Self::text(key), value)).collect())
    }

    /// What PyTorch writes for a tensor: a view of `storage`, in elements.
    pub fn tensor(storage: &Py, offset: usize, shape: &[usize], strides: &[usize]) -> Self {
        let sizes = |sizes: &[usize]| Self::Tuple(sizes.iter().map(|&size| Self::Int(size as i64)).collect());
        let hooks = Self::Object("collections", "OrderedDict", vec![], None);
        Self::Object(
            "torch._utils",
            "_rebuild_tensor_v2",
            vec![
                storage.clone(),
                Self::Int(offset as i64),
                sizes(shape),
                sizes(strides),
                Self::Bool(false),
                hooks,
            ],
            None,
        )
    }

    /// A `torch.nn.Parameter` around a tensor.
    pub fn parameter(tensor: Py) -> Self {
        let hooks = Self::Object("collections", "OrderedDict", vec![], None);
        Self::Object("torch._utils", "_rebuild_parameter", vec![tensor, Self::Bool(true), hooks], None)
    }
}

/// Writes pickles, whole values or single instructions.
#[derive(Debug)]
pub struct Pickler {
    bytes: Vec<u8>,
    legacy: bool,
}

impl Pickler {
    /// A pickle of protocol 2. The old container adds a field to each storage's reference.
    pub fn new(legacy: bool) -> Self {
        Self { bytes: vec![0x80, 2], legacy }
    }

    /// One value as a whole pickle.
    pub fn pickle(value: &Py, legacy: bool) -> Vec<u8> {
        Self::new(legacy).value(value).finish()
    }

    /// Instructions as they are.
    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.bytes.extend(bytes);
        self
    }

    /// A value on top of the stack.
    pub fn value(self, value: &Py) -> Self {
        match value {
            Py::None => self.raw(b"N"),
            Py::Bool(value) => self.raw(if *value { b"\x88" } else { b"\x89" }),
            Py::Int(value) => match i32::try_from(*value) {
                Ok(value) => self.raw(b"J").raw(&value.to_le_bytes()),
                Err(_) => self.raw(b"\x8a\x08").raw(&value.to_le_bytes()),
            },
            Py::Float(value) => self.raw(b"G").raw(&value.to_be_bytes()),
            Py::Text(text) => self.raw(b"X").raw(&(text.len() as u32).to_le_bytes()).raw(text.as_bytes()),
            Py::List(items) => self.raw(b"](").values(items).raw(b"e"),
            Py::Tuple(items) => self.raw(b"(").values(items).raw(b"t"),
            Py::Dict(entries) => self.raw(b"}(").entries(entries).raw(b"u"),
            Py::OrderedDict(entries) => {
                self.global("collections", "OrderedDict").raw(b")R(").entries(entries).raw(b"u")
            }
            Py::Global(module, name) => self.global(module, name),
            Py::Object(module, name, args, state) => {
                let called = self.global(module, name).raw(b"(").values(args).raw(b"tR");
                match state {
                    Some(state) => called.value(state).raw(b"b"),
                    None => called,
                }
            }
            Py::Storage(..) => self.storage(value, Py::None),
            Py::StorageView(storage, offset, elements) => {
                let part = vec![Py::text("part"), Py::Int(*offset as i64), Py::Int(*elements as i64)];
                self.storage(storage, Py::Tuple(part))
            }
        }
    }

    /// The pickle's bytes.
    pub fn finish(self) -> Vec<u8> {
        self.raw(b".").bytes
    }

    fn storage(self, storage: &Py, part: Py) -> Self {
        let Py::Storage(class, key, elements) = storage else { panic!("{storage:?} is no storage") };
        let mut fields = vec![
            Py::text("storage"),
            Py::Global("torch", class),
            Py::text(key),
            Py::text("cpu"),
            Py::Int(*elements as i64),
        ];
        if self.legacy {
            fields.push(part);
        }
        self.value(&Py::Tuple(fields)).raw(b"Q")
    }

    fn global(self, module: &str, name: &str) -> Self {
        self.raw(format!("c{module}\n{name}\n").as_bytes())
    }

    fn values(self, values: &[Py]) -> Self {
        values.iter().fold(self, Self::value)
    }

    fn entries(self, entries: &[(Py, Py)]) -> Self {
        entries.iter().fold(self, |pickler, (key, value)| pickler.value(key).value(value))
    }
}

/// Writes PyTorch checkpoints in both containers.
#[derive(Debug, Default, Clone)]
pub struct TorchWriter {
    storages: Vec<(String, usize, Vec<u8>)>,
    big_endian: bool,
}

impl TorchWriter {
    /// No storages yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Says that the numbers are big-endian, whatever they are.
    pub fn big_endian(mut self) -> Self {
        self.big_endian = true;
        self
    }

    /// Adds a storage of a class (`FloatStorage`) with elements of `size` bytes; gives the reference to it.
    pub fn storage(&mut self, class: &'static str, size: usize, bytes: Vec<u8>) -> Py {
        let key = self.storages.len().to_string();
        let elements = bytes.len() / size;
        self.storages.push((key.clone(), elements, bytes));
        Py::Storage(class, key, elements)
    }

    /// Adds a storage of `f32`.
    pub fn floats(&mut self, values: &[f32]) -> Py {
        self.storage("FloatStorage", 4, values.iter().flat_map(|value| value.to_le_bytes()).collect())
    }

    /// The container before PyTorch 1.6.
    pub fn legacy(&self, root: &Py) -> Vec<u8> {
        self.legacy_around(&Pickler::pickle(root, true))
    }

    /// The container before PyTorch 1.6, around any pickle.
    pub fn legacy_around(&self, pickle: &[u8]) -> Vec<u8> {
        let magic = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";
        let system = Py::dict([
            ("protocol_version", Py::Int(1001)),
            ("little_endian", Py::Bool(!self.big_endian)),
            ("type_sizes", Py::dict([("short", Py::Int(2)), ("int", Py::Int(4)), ("long", Py::Int(4))])),
        ]);
        let keys = Py::List(self.storages.iter().map(|(key, ..)| Py::text(key)).collect());
        let mut bytes = magic.to_vec();
        bytes.extend(Pickler::pickle(&Py::Int(1001), true));
        bytes.extend(Pickler::pickle(&system, true));
        bytes.extend(pickle);
        bytes.extend(Pickler::pickle(&keys, true));
        for (_, elements, storage) in &self.storages {
            bytes.extend((*elements as u64).to_le_bytes());
            bytes.extend(storage);
        }
        bytes
    }

    /// The container since PyTorch 1.6.
    pub fn zip(&self, root: &Py) -> Vec<u8> {
        self.zip_around(&Pickler::pickle(root, false), CompressionMethod::Stored)
    }

    /// The container since PyTorch 1.6, around any pickle.
    ///
    /// # Panics
    /// If memory cannot hold the archive.
    pub fn zip_around(&self, pickle: &[u8], method: CompressionMethod) -> Vec<u8> {
        let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
        let options = SimpleFileOptions::default().compression_method(method);
        let mut add = |name: &str, bytes: &[u8]| {
            archive.start_file(format!("archive/{name}"), options).expect("a new entry");
            archive.write_all(bytes).expect("room in memory");
        };
        add("data.pkl", pickle);
        add("byteorder", if self.big_endian { b"big" } else { b"little" });
        for (key, _, storage) in &self.storages {
            add(&format!("data/{key}"), storage);
        }
        add("version", b"3\n");
        archive.finish().expect("room in memory").into_inner()
    }
}

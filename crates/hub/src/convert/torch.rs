//! What PyTorch means by the values of its pickles.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value as Json};

use super::pickle::{Id, Pickle, Value};
use crate::StoredType;
use crate::names::printable;

/// Dictionaries inside dictionaries that are searched for tensors: `ckpt["model"]["net"]` is two.
const MAX_NESTING: usize = 4;
/// Plain values taken from beside the tensors; more is data, not a description.
const MAX_FACTS: usize = 10_000;
/// Bytes of a name; a pickle can use one long text a million times.
const MAX_NAME: usize = 1024;
/// PyTorch's own limit on dimensions.
const MAX_RANK: usize = 64;

/// A tensor: a view into a storage, in elements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TensorRef {
    pub(crate) storage: String,
    pub(crate) stored: StoredType,
    pub(crate) offset: usize,
    pub(crate) shape: Vec<usize>,
    pub(crate) strides: Vec<usize>,
}

/// A storage that the pickle refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StorageInfo {
    pub(crate) stored: StoredType,
    pub(crate) elements: usize,
}

/// A dictionary with tensors in it.
#[derive(Debug)]
pub(crate) struct TensorDict {
    /// Keys that lead to it, joined by dots; empty for the outermost.
    pub(crate) key: String,
    pub(crate) tensors: Vec<(String, TensorRef)>,
    pub(crate) skipped: Vec<(String, String)>,
}

/// What a checkpoint holds.
#[derive(Debug)]
pub(crate) struct Contents {
    pub(crate) dicts: Vec<TensorDict>,
    /// Plain entries of the outermost dictionary.
    pub(crate) facts: Map<String, Json>,
    /// Entries of the outermost dictionary that are neither tensors nor plain, with what they are.
    pub(crate) skipped: Vec<(String, String)>,
    pub(crate) storages: HashMap<String, StorageInfo>,
}

impl Contents {
    pub(crate) fn read(pickle: &Pickle<'_>) -> Result<Self, String> {
        let mut reader = Reader { pickle, seen: HashSet::new() };
        let storages = reader.storages()?;
        let Value::Dict(entries) = pickle.get(pickle.root()) else {
            return Err(format!(
                "it holds {} and no dictionary of tensors: load it where it was made, and save \
                 `model.state_dict()`",
                reader.describe(pickle.root())
            ));
        };
        let mut contents = Self { dicts: Vec::new(), facts: Map::new(), skipped: Vec::new(), storages };
        reader.collect(String::new(), entries, 0, &mut contents.dicts)?;
        let mut budget = MAX_FACTS;
        for &(key, value) in entries {
            let Some(key) = reader.name(key)? else { continue };
            if reader.tensor(value, 0)?.is_some() {
                continue;
            }
            if let Some(fact) = reader.plain(value, 0, &mut budget) {
                contents.facts.insert(key.to_owned(), fact);
            } else if !contents.dicts.iter().any(|dict| leads_to(key, &dict.key)) {
                contents.skipped.push((key.to_owned(), reader.describe(value)));
            }
        }
        Ok(contents)
    }
}

fn leads_to(key: &str, path: &str) -> bool {
    path.strip_prefix(key).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

struct Reader<'p, 'a> {
    pickle: &'p Pickle<'a>,
    /// Dictionaries that were searched: a pickle can refer to one from a million places.
    seen: HashSet<Id>,
}

impl<'p, 'a> Reader<'p, 'a> {
    /// Every dictionary that has a tensor as a direct entry, outermost first.
    fn collect(
        &mut self,
        path: String,
        entries: &[(Id, Id)],
        depth: usize,
        dicts: &mut Vec<TensorDict>,
    ) -> Result<(), String> {
        let mut found = TensorDict { key: path.clone(), tensors: Vec::new(), skipped: Vec::new() };
        let mut nested = Vec::new();
        for &(key, value) in entries {
            let Some(key) = self.name(key)? else {
                found.skipped.push((self.describe(key), "an entry whose key is not text".to_owned()));
                continue;
            };
            let name = || if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
            match self
                .tensor(value, 0)
                .map_err(|problem| format!("tensor {}: {problem}", printable(&name())))?
            {
                Some(tensor) => found.tensors.push((key.to_owned(), tensor)),
                None => {
                    if let Value::Dict(inner) = self.pickle.get(value)
                        && self.seen.insert(value)
                    {
                        nested.push((name(), inner));
                    }
                    found.skipped.push((key.to_owned(), self.describe(value)));
                }
            }
        }
        if !found.tensors.is_empty() {
            dicts.push(found);
        }
        if depth < MAX_NESTING {
            for (path, inner) in nested {
                self.collect(path, inner, depth + 1, dicts)?;
            }
        }
        Ok(())
    }

    /// A key's text, if it is text.
    fn name(&self, id: Id) -> Result<Option<&'a str>, String> {
        match self.pickle.get(id) {
            Value::Text(text) if text.len() > MAX_NAME => {
                Err(format!("a name has {} bytes, expected at most {MAX_NAME}", text.len()))
            }
            Value::Text(text) => Ok(Some(text)),
            _ => Ok(None),
        }
    }

    fn items(&self, id: Id) -> &'p [Id] {
        match self.pickle.get(id) {
            Value::Tuple(items) | Value::List(items) => items,
            _ => &[],
        }
    }

    /// The tensor that a value stands for, if it stands for one.
    fn tensor(&self, id: Id, depth: usize) -> Result<Option<TensorRef>, String> {
        let Value::Call { callee, args } = self.pickle.get(id) else { return Ok(None) };
        self.call(*callee, *args, depth)
    }

    fn call(&self, callee: Id, args: Id, depth: usize) -> Result<Option<TensorRef>, String> {
        // A parameter of a parameter of …: no file has that for a reason.
        if depth > MAX_NESTING {
            return Ok(None);
        }
        let Value::Global { module, name } = self.pickle.get(callee) else { return Ok(None) };
        match (*module, *name, self.items(args)) {
            (
                "torch._utils",
                "_rebuild_tensor" | "_rebuild_tensor_v2",
                [storage, offset, shape, strides, ..],
            ) => self.view(*storage, *offset, *shape, *strides).map(Some),
            ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2", _) => {
                Err("its description is incomplete".to_owned())
            }
            ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state", [data, ..]) => {
                self.tensor(*data, depth + 1)
            }
            ("torch._tensor", "_rebuild_from_type_v2", [function, _, args, ..]) => {
                self.call(*function, *args, depth + 1)
            }
            _ => Ok(None),
        }
    }

    fn view(&self, storage: Id, offset: Id, shape: Id, strides: Id) -> Result<TensorRef, String> {
        let Value::Persistent(storage) = self.pickle.get(storage) else {
            return Err(format!("expected a storage, got {}", self.describe(storage)));
        };
        let (key, info, view) = self.storage(*storage)?;
        let offset = self.count(offset)?.checked_add(view).ok_or("its offset is beyond counting")?;
        if self.items(shape).len().max(self.items(strides).len()) > MAX_RANK {
            return Err(format!(
                "it has {} dimensions, expected at most {MAX_RANK}",
                self.items(shape).len()
            ));
        }
        let list =
            |id: Id| self.items(id).iter().map(|&item| self.count(item)).collect::<Result<Vec<_>, _>>();
        let (shape, strides) = (list(shape)?, list(strides)?);
        if shape.len() != strides.len() {
            return Err(format!("its shape {shape:?} and strides {strides:?} differ in length"));
        }
        Ok(TensorRef { storage: key.to_owned(), stored: info.stored, offset, shape, strides })
    }

    fn count(&self, id: Id) -> Result<usize, String> {
        match self.pickle.get(id) {
            Value::Int(value) => usize::try_from(*value).ok(),
            _ => None,
        }
        .ok_or_else(|| format!("expected a size, got {}", self.describe(id)))
    }

    /// A storage's key, what it is, and where in it the view starts that old files may add.
    fn storage(&self, id: Id) -> Result<(&'a str, StorageInfo, usize), String> {
        let (class, key, elements, view) = match *self.items(id) {
            [tag, class, key, _, elements] if self.is_text(tag, "storage") => (class, key, elements, None),
            [tag, class, key, _, elements, view] if self.is_text(tag, "storage") => {
                (class, key, elements, Some(view))
            }
            _ => return Err(format!("expected a reference to a storage, got {}", self.describe(id))),
        };
        let Some(key) = self.name(key)? else {
            return Err(format!("expected a storage's key, got {}", self.describe(key)));
        };
        let offset = match view.map(|view| self.items(view)) {
            Some([_, offset, _]) => self.count(*offset)?,
            _ => 0,
        };
        let info = StorageInfo { stored: self.storage_type(class)?, elements: self.count(elements)? };
        Ok((key, info, offset))
    }

    fn is_text(&self, id: Id, expected: &str) -> bool {
        matches!(self.pickle.get(id), Value::Text(text) if *text == expected)
    }

    fn storage_type(&self, class: Id) -> Result<StoredType, String> {
        let name = match self.pickle.get(class) {
            Value::Global { module, name } if module.split('.').next() == Some("torch") => name,
            _ => return Err(format!("expected a storage's class, got {}", self.describe(class))),
        };
        Ok(match *name {
            "DoubleStorage" => StoredType::F64,
            "FloatStorage" => StoredType::F32,
            "HalfStorage" => StoredType::F16,
            "BFloat16Storage" => StoredType::Bf16,
            "LongStorage" => StoredType::I64,
            "IntStorage" => StoredType::I32,
            "ShortStorage" => StoredType::I16,
            "CharStorage" => StoredType::I8,
            "ByteStorage" => StoredType::U8,
            "BoolStorage" => StoredType::Bool,
            other => {
                return Err(format!(
                    "storages of class {} are not understood, expected one of Double, Float, Half, BFloat16, \
                     Long, Int, Short, Char, Byte and BoolStorage",
                    printable(other)
                ));
            }
        })
    }

    /// All storages that are referred to, used by a tensor or not: the legacy container lists them all.
    fn storages(&self) -> Result<HashMap<String, StorageInfo>, String> {
        let mut storages = HashMap::new();
        for value in self.pickle.values() {
            let Value::Persistent(id) = value else { continue };
            let (key, info, _) = self.storage(*id)?;
            if storages.insert(key.to_owned(), info).is_some_and(|earlier| earlier != info) {
                return Err(format!("storage {key} is described in two ways"));
            }
        }
        Ok(storages)
    }

    /// A value of numbers, text, lists and dictionaries alone.
    fn plain(&self, id: Id, depth: usize, budget: &mut usize) -> Option<Json> {
        let cost = match self.pickle.get(id) {
            Value::Text(text) => 1 + text.len() / MAX_NAME,
            _ => 1,
        };
        *budget = budget.checked_sub(cost)?;
        if depth > MAX_NESTING {
            return None;
        }
        Some(match self.pickle.get(id) {
            Value::None => Json::Null,
            Value::Bool(value) => Json::Bool(*value),
            Value::Int(value) => Json::from(*value),
            Value::Float(value) => Json::from(*value),
            Value::Text(text) => Json::from(*text),
            Value::List(items) | Value::Tuple(items) => items
                .iter()
                .map(|&item| self.plain(item, depth + 1, budget))
                .collect::<Option<Vec<_>>>()?
                .into(),
            Value::Dict(entries) => {
                let mut map = Map::new();
                for &(key, value) in entries {
                    let key = self.name(key).ok()??;
                    map.insert(key.to_owned(), self.plain(value, depth + 1, budget)?);
                }
                map.into()
            }
            _ => return None,
        })
    }

    fn describe(&self, id: Id) -> String {
        match self.pickle.get(id) {
            Value::None => "None".to_owned(),
            Value::Bool(value) => value.to_string(),
            Value::Int(value) => format!("the number {value}"),
            Value::BigInt(_) => "a number of more than 64 bits".to_owned(),
            Value::Float(value) => format!("the number {value}"),
            Value::Text(text) => format!("the text {:?}", text.chars().take(40).collect::<String>()),
            Value::Bytes(bytes) => format!("{} bytes", bytes.len()),
            Value::List(items) => format!("a list of {}", items.len()),
            Value::Tuple(items) => format!("a tuple of {}", items.len()),
            Value::Set => "a set".to_owned(),
            Value::Dict(entries) => format!("a dictionary of {}", entries.len()),
            Value::Global { module, name } => format!("the class {}.{}", printable(module), printable(name)),
            Value::Call { callee, .. } => match self.pickle.get(*callee) {
                Value::Global { module, name } => {
                    format!("an object of {}.{}", printable(module), printable(name))
                }
                _ => "an object of no named class".to_owned(),
            },
            Value::Persistent(_) => "a storage".to_owned(),
        }
    }
}

/// One layer in the summary of a model, for one sample.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Full name, such as `layer1.0.conv1`; that of the enclosing scope for a layer without a name.
    pub name: String,
    /// What it is, such as `conv 3x3 16 -> 32, stride 2`.
    pub kind: String,
    /// Shape of the output without the batch axis.
    pub output: Vec<usize>,
    /// Number of learnt values.
    pub parameters: usize,
    /// Multiplications with an addition in linear maps.
    pub macs: u64,
    /// Bytes of the output in f32.
    pub activation_bytes: u64,
}

/// A walk through a network that collects one [`Row`] for each layer.
#[derive(Clone, Debug, Default)]
pub struct Walk {
    path: String,
    rows: Vec<Row>,
}

impl Walk {
    /// Nothing seen yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The rows so far.
    pub fn into_rows(self) -> Vec<Row> {
        self.rows
    }

    /// Runs `body` with `name` added to the path, where it is not empty.
    pub fn scope<T>(&mut self, name: &str, body: impl FnOnce(&mut Walk) -> T) -> T {
        let inner = self.join(name);
        let outer = std::mem::replace(&mut self.path, inner);
        let result = body(self);
        self.path = outer;
        result
    }

    /// Adds a layer.
    pub fn row(&mut self, name: &str, kind: String, output: &[usize], parameters: usize, macs: u64) {
        let activation_bytes = output.iter().map(|d| *d as u64).product::<u64>() * size_of::<f32>() as u64;
        self.rows.push(Row {
            name: self.join(name),
            kind,
            output: output.to_vec(),
            parameters,
            macs,
            activation_bytes,
        });
    }

    fn join(&self, name: &str) -> String {
        match (self.path.is_empty(), name.is_empty()) {
            (true, _) => name.to_string(),
            (_, true) => self.path.clone(),
            _ => format!("{}.{name}", self.path),
        }
    }
}

/// One event, encoded as the protocol buffer `tensorflow.Event`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event(Vec<u8>);

const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const BYTES: u64 = 2;
const FIXED32: u64 = 5;

impl Event {
    /// The first event of every file.
    pub fn version(wall_time: f64) -> Self {
        let mut event = Event::at(wall_time, 0);
        event.bytes_field(3, b"brain.Event:2");
        event
    }

    /// A process begins at `step`: what earlier files say from that step on is void.
    pub fn session_start(wall_time: f64, step: u64) -> Self {
        const START: u64 = 1;
        let mut log = Event(Vec::new());
        log.integer_field(1, START);
        let mut event = Event::at(wall_time, step);
        event.bytes_field(7, &log.0);
        event
    }

    /// Values under their tags at a step.
    pub fn scalars(wall_time: f64, step: u64, values: &[(&str, f64)]) -> Self {
        let mut summary = Event(Vec::new());
        for (tag, number) in values {
            let mut value = Event(Vec::new());
            value.bytes_field(1, tag.as_bytes());
            value.key(2, FIXED32);
            value.0.extend((*number as f32).to_le_bytes());
            summary.bytes_field(1, &value.0);
        }
        let mut event = Event::at(wall_time, step);
        event.bytes_field(5, &summary.0);
        event
    }

    /// The encoded event.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    fn at(wall_time: f64, step: u64) -> Self {
        let mut event = Event(Vec::new());
        event.key(1, FIXED64);
        event.0.extend(wall_time.to_le_bytes());
        // The encoding leaves zeros out.
        if step != 0 {
            event.integer_field(2, step);
        }
        event
    }

    fn key(&mut self, field: u64, kind: u64) {
        self.varint(field << 3 | kind);
    }

    fn integer_field(&mut self, field: u64, value: u64) {
        self.key(field, VARINT);
        self.varint(value);
    }

    fn bytes_field(&mut self, field: u64, bytes: &[u8]) {
        self.key(field, BYTES);
        self.varint(bytes.len() as u64);
        self.0.extend(bytes);
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

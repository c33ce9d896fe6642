// Rust names: generics, closures, inlining across crates.
use std::collections::HashMap;

struct Conn {
    name: String,
}

trait Reader {
    fn read(&self, n: usize) -> String;
}

impl Reader for Conn {
    fn read(&self, n: usize) -> String {
        self.name.repeat(n)
    }
}

#[inline(always)]
fn fresh(n: usize) -> Box<Conn> {
    Box::new(Conn { name: format!("c{}", n) })
}

#[inline(never)]
fn open_all<F: Fn(usize) -> Box<Conn>>(n: usize, f: F) -> HashMap<usize, Box<Conn>> {
    (0..n).map(|i| (i, f(i))).collect()
}

fn main() {
    let n = std::env::args().count();
    let conns = open_all(n + 3, |i| fresh(i * 2));
    let mut total = 0;
    for (i, c) in &conns {
        let r: &dyn Reader = &**c;
        total += r.read(*i).len();
    }
    println!("{}", total);
}

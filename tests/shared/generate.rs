//! The program behind `make generate`: it writes the generated parts of `docs/`.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a program for maintainers, which may end with a panic"
)]

mod reference;

fn main() {
    for page in reference::pages() {
        if page.generated != page.found {
            std::fs::write(&page.path, page.generated).unwrap();
            println!("written: {}", page.path.display());
        }
    }
}

//! The rows of the catalogue, and the check that none is without a case.
//! What each row asks is written with its case.

/// Every row, by group.
#[rustfmt::skip]
const ROWS: &[&str] = &[
    "A1", "A3", "A5", "A6", "A7", "A8", "A9", "A13", "A14", "A15", "A17", "A18", "A19", "A20", "A21", "A23", "A24", "A25", "A26", "A27", "A28", "A30", "A31", "A32",
    "B1", "B3", "B4", "B6", "B7", "B8", "B9", "B10", "B13", "B14", "B17",
    "T1", "T3", "T8",
    "C1", "C2", "C3", "C4", "C5", "C6", "C7", "C9", "C10", "C12", "C14", "C15", "C16", "C18", "C20", "C21", "C23", "C25",
    "D1", "D2", "D3", "D4", "D5", "D6", "D7", "D8", "D9", "D10", "D11", "D13", "D14", "D15", "D16", "D17",
    "E1", "E2", "E3", "E5", "E6", "E7", "E8", "E11", "E13", "E16", "E17",
    "F1", "F2", "F3", "F4", "F5", "F6", "F7", "F8", "F9", "F10", "F11", "F13", "F15", "F16", "F18", "F21", "F22",
    "G1", "G2", "G3", "G4", "G5", "G6", "G7", "G8", "G9", "G10", "G11", "G12", "G16",
    "I1", "I2", "I3", "I4", "I5", "I6", "I21", "I8", "I9", "I11", "I12", "I15", "I17", "I19",
    "J1", "J2", "J3", "J4", "J5", "J6", "J7", "J9",
    "K1", "K3", "K4", "K5", "K6", "K7", "K9",
    "L1", "L2", "L3", "L4", "L5", "L6", "L8", "L9", "L10", "L12", "L13", "L16", "L17", "L19", "L21", "L23",
    "M7", "M10", "M12",
    "N1", "N2", "N3", "N4", "N5", "N6", "N9", "N10", "N14", "N15",
    "O6", "O8", "O11",
    "P1", "P2", "P3", "P5", "P6", "P7", "P8", "P9", "P13", "P15", "P16", "P17", "P19", "P21", "P24",
    "Q1", "Q2", "Q3", "Q4", "Q5", "Q8", "Q10",
];

/// Panics if a row has no case, or a case no row. A `+` after the row marks a neighbour of it.
pub fn check_rows(cases: &[&str]) {
    let mut unknown: Vec<&str> = cases.iter().filter_map(|case| case.split([' ', '+']).next()).collect();
    let missing: Vec<_> =
        ROWS.iter().filter(|row| !cases.iter().any(|case| case.split(' ').next() == Some(row))).collect();
    assert!(missing.is_empty(), "rows without a case: {missing:?}");
    unknown.retain(|row| !ROWS.contains(row));
    assert!(unknown.is_empty(), "cases without a row: {unknown:?}");
    let mut names = cases.to_vec();
    names.sort_unstable();
    names.windows(2).for_each(|pair| assert_ne!(pair[0], pair[1], "two cases of one name"));
}

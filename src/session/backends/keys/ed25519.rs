//! Recognises Ed25519 public keys that are unsafe to use.

/// Whether an Ed25519 public key is one of the eight points whose order divides 8, in any encoding. For such a key,
/// signatures of many or all messages can be forged without a private key.
pub(super) fn is_of_small_order(point: &[u8; 32]) -> bool {
    // The y coordinates of these points, in little-endian bytes, with p = 2^255 - 19: 0, 1 and p - 1 (orders 4, 1 and
    // 2), p and p + 1 (other encodings of 0 and 1), and the two y coordinates of the points of order 8.
    const EDGES: [(u8, u8, u8); 5] = [
        (0, 0, 0),
        (1, 0, 0),
        (0xec, 0xff, 0x7f),
        (0xed, 0xff, 0x7f),
        (0xee, 0xff, 0x7f),
    ];
    const ORDER_8: [[u8; 32]; 2] = [
        [
            0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef,
            0x98, 0xf0, 0xd5, 0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88,
            0x6d, 0x53, 0xfc, 0x05,
        ],
        [
            0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10,
            0x67, 0x0f, 0x2a, 0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77,
            0x92, 0xac, 0x03, 0x7a,
        ],
    ];
    // The highest bit is the sign of x, which is irrelevant here.
    let mut y = *point;
    y[31] &= 0x7f;
    let is_edge = |(first, middle, last): (u8, u8, u8)| {
        y[0] == first && y[1..31].iter().all(|&byte| byte == middle) && y[31] == last
    };
    EDGES.into_iter().any(is_edge) || ORDER_8.contains(&y)
}

//! Operations to instructions, one for each width.

use super::Width;
use crate::kir::{Binary, Comparison, Shift, Type, Unary};
use iced_x86::Code::{self, *};

/// The instruction for 256 bits and the one for 512.
#[derive(Clone, Copy)]
pub(super) struct Codes(pub [Code; 2]);

pub(super) const fn both(code: Code) -> Codes {
    Codes([code, code])
}

pub(super) const LOAD: Codes = Codes([VEX_Vmovups_ymm_ymmm256, EVEX_Vmovups_zmm_k1z_zmmm512]);
pub(super) const STORE: Codes = Codes([VEX_Vmovups_ymmm256_ymm, EVEX_Vmovups_zmmm512_k1z_zmm]);
pub(super) const MASKED_LOAD: Codes = both(VEX_Vmaskmovps_ymm_ymm_m256);
pub(super) const MASKED_STORE: Codes = both(VEX_Vmaskmovps_m256_ymm_ymm);
pub(super) const BROADCAST: Codes =
    Codes([VEX_Vbroadcastss_ymm_m32, EVEX_Vbroadcastss_zmm_k1z_xmmm32]);
/// Bytes to 4-byte integers, from memory.
pub(super) const WIDEN_UNSIGNED: Codes =
    Codes([VEX_Vpmovzxbd_ymm_xmmm64, EVEX_Vpmovzxbd_zmm_k1z_xmmm128]);
pub(super) const WIDEN_SIGNED: Codes =
    Codes([VEX_Vpmovsxbd_ymm_xmmm64, EVEX_Vpmovsxbd_zmm_k1z_xmmm128]);
/// Exclusive or; of a register with itself, zero.
pub(super) const XOR: Codes =
    Codes([VEX_Vpxor_ymm_ymm_ymmm256, EVEX_Vpxord_zmm_k1z_zmm_zmmm512b32]);
pub(super) const AND: Codes =
    Codes([VEX_Vpand_ymm_ymm_ymmm256, EVEX_Vpandd_zmm_k1z_zmm_zmmm512b32]);
pub(super) const ROUND: Codes =
    Codes([VEX_Vroundps_ymm_ymmm256_imm8, EVEX_Vrndscaleps_zmm_k1z_zmmm512b32_imm8_sae]);
pub(super) const COMPARE: Codes =
    Codes([VEX_Vcmpps_ymm_ymm_ymmm256_imm8, EVEX_Vcmpps_kr_k1_zmm_zmmm512b32_imm8_sae]);
pub(super) const SELECT: Codes =
    Codes([VEX_Vblendvps_ymm_ymm_ymmm256_ymm, EVEX_Vblendmps_zmm_k1z_zmm_zmmm512b32]);
pub(super) const FIRST: Codes =
    Codes([VEX_Vblendps_ymm_ymm_ymmm256_imm8, EVEX_Vblendmps_zmm_k1z_zmm_zmmm512b32]);
pub(super) const MUL_ADD_213: Codes =
    Codes([VEX_Vfmadd213ps_ymm_ymm_ymmm256, EVEX_Vfmadd213ps_zmm_k1z_zmm_zmmm512b32_er]);
pub(super) const MUL_ADD_231: Codes =
    Codes([VEX_Vfmadd231ps_ymm_ymm_ymmm256, EVEX_Vfmadd231ps_zmm_k1z_zmm_zmmm512b32_er]);
pub(super) const SUB_I32: Codes =
    Codes([VEX_Vpsubd_ymm_ymm_ymmm256, EVEX_Vpsubd_zmm_k1z_zmm_zmmm512b32]);

/// Where one instruction does it.
pub(super) fn unary(op: Unary) -> Option<Codes> {
    Some(Codes(match op {
        Unary::Sqrt => [VEX_Vsqrtps_ymm_ymmm256, EVEX_Vsqrtps_zmm_k1z_zmmm512b32_er],
        Unary::ToI32 => [VEX_Vcvttps2dq_ymm_ymmm256, EVEX_Vcvttps2dq_zmm_k1z_zmmm512b32_sae],
        Unary::ToF32 => [VEX_Vcvtdq2ps_ymm_ymmm256, EVEX_Vcvtdq2ps_zmm_k1z_zmmm512b32_er],
        // Of integers.
        Unary::Abs => [VEX_Vpabsd_ymm_ymmm256, EVEX_Vpabsd_zmm_k1z_zmmm512b32],
        Unary::Neg
        | Unary::Not
        | Unary::Round
        | Unary::Floor
        | Unary::Ceil
        | Unary::Trunc
        | Unary::ToF64
        | Unary::ToI64
        | Unary::ToBits
        | Unary::FromBits => return None,
    }))
}

/// How `ROUND` rounds, without an exception for what is inexact.
pub(super) fn rounding(op: Unary) -> Option<u8> {
    match op {
        Unary::Round => Some(8),
        Unary::Floor => Some(9),
        Unary::Ceil => Some(10),
        Unary::Trunc => Some(11),
        Unary::Neg
        | Unary::Abs
        | Unary::Not
        | Unary::Sqrt
        | Unary::ToF32
        | Unary::ToI32
        | Unary::ToF64
        | Unary::ToI64
        | Unary::ToBits
        | Unary::FromBits => None,
    }
}

pub(super) fn binary(op: Binary, ty: Type, width: Width) -> Codes {
    let float = ty == Type::F32;
    Codes(match op {
        Binary::Add if float => [VEX_Vaddps_ymm_ymm_ymmm256, EVEX_Vaddps_zmm_k1z_zmm_zmmm512b32_er],
        Binary::Sub if float => [VEX_Vsubps_ymm_ymm_ymmm256, EVEX_Vsubps_zmm_k1z_zmm_zmmm512b32_er],
        Binary::Mul if float => [VEX_Vmulps_ymm_ymm_ymmm256, EVEX_Vmulps_zmm_k1z_zmm_zmmm512b32_er],
        Binary::Min if float => {
            [VEX_Vminps_ymm_ymm_ymmm256, EVEX_Vminps_zmm_k1z_zmm_zmmm512b32_sae]
        }
        Binary::Max if float => {
            [VEX_Vmaxps_ymm_ymm_ymmm256, EVEX_Vmaxps_zmm_k1z_zmm_zmmm512b32_sae]
        }
        Binary::Add => [VEX_Vpaddd_ymm_ymm_ymmm256, EVEX_Vpaddd_zmm_k1z_zmm_zmmm512b32],
        Binary::Sub => return SUB_I32,
        Binary::Mul => [VEX_Vpmulld_ymm_ymm_ymmm256, EVEX_Vpmulld_zmm_k1z_zmm_zmmm512b32],
        Binary::Min => [VEX_Vpminsd_ymm_ymm_ymmm256, EVEX_Vpminsd_zmm_k1z_zmm_zmmm512b32],
        Binary::Max => [VEX_Vpmaxsd_ymm_ymm_ymmm256, EVEX_Vpmaxsd_zmm_k1z_zmm_zmmm512b32],
        // The verifier lets integers be divided with one lane only.
        Binary::Div | Binary::Rem => {
            [VEX_Vdivps_ymm_ymm_ymmm256, EVEX_Vdivps_zmm_k1z_zmm_zmmm512b32_er]
        }
        // Masks are in registers of their own.
        Binary::And if ty == Type::Mask && width == Width::Avx512 => [VEX_Kandw_kr_kr_kr; 2],
        Binary::Or if ty == Type::Mask && width == Width::Avx512 => [VEX_Korw_kr_kr_kr; 2],
        Binary::Xor if ty == Type::Mask && width == Width::Avx512 => [VEX_Kxorw_kr_kr_kr; 2],
        Binary::And => return AND,
        Binary::Or => [VEX_Vpor_ymm_ymm_ymmm256, EVEX_Vpord_zmm_k1z_zmm_zmmm512b32],
        Binary::Xor => return XOR,
        // With 256 bits it is in an extension of AVX-512, not in AVX2: the verifier has seen to
        // that.
        Binary::Scale => return both(EVEX_Vscalefps_zmm_k1z_zmm_zmmm512b32_er),
    })
}

pub(super) fn shift(op: Shift) -> Codes {
    Codes(match op {
        Shift::Left => [VEX_Vpslld_ymm_ymm_imm8, EVEX_Vpslld_zmm_k1z_zmmm512b32_imm8],
        Shift::RightSigned => [VEX_Vpsrad_ymm_ymm_imm8, EVEX_Vpsrad_zmm_k1z_zmmm512b32_imm8],
        Shift::RightUnsigned => [VEX_Vpsrld_ymm_ymm_imm8, EVEX_Vpsrld_zmm_k1z_zmmm512b32_imm8],
    })
}

/// Of `COMPARE`, ordered and quiet: false when either is a NaN, without an exception.
pub(super) fn float_predicate(op: Comparison) -> u8 {
    match op {
        Comparison::Equal => 0,
        Comparison::Less => 17,
        Comparison::LessEqual => 18,
    }
}

/// Of `vpcmpd`.
pub(super) fn integer_predicate(op: Comparison) -> u8 {
    match op {
        Comparison::Equal => 0,
        Comparison::Less => 1,
        Comparison::LessEqual => 2,
    }
}

/// The shuffles that exchange halves, quarters and so on.
pub(super) fn exchanges(width: Width) -> &'static [(Code, u8)] {
    match width {
        Width::Avx2 => &[
            (VEX_Vperm2f128_ymm_ymm_ymmm256_imm8, 0x01),
            (VEX_Vshufps_ymm_ymm_ymmm256_imm8, 0x4e),
            (VEX_Vshufps_ymm_ymm_ymmm256_imm8, 0xb1),
        ],
        Width::Avx512 => &[
            (EVEX_Vshuff32x4_zmm_k1z_zmm_zmmm512b32_imm8, 0x4e),
            (EVEX_Vshuff32x4_zmm_k1z_zmm_zmmm512b32_imm8, 0xb1),
            (EVEX_Vshufps_zmm_k1z_zmm_zmmm512b32_imm8, 0x4e),
            (EVEX_Vshufps_zmm_k1z_zmm_zmmm512b32_imm8, 0xb1),
        ],
    }
}

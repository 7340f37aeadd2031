"""Recovery: images optimised until a frozen network shows what it shows of real ones (SRe2L, G_VBSM, CDA)."""

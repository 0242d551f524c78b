"""Autotuning: better values for the named decisions of schedules, found by measuring, kept in a file of records.

    tasks     the kernels of a model, with memory to run them on and the bytes that they must write
    space     a kernel's decisions, as TVM's MetaSchedule sees them
    search    MetaSchedule: what to measure next
    measure…  how long it takes: here, on a board, on a farm of boards, or counted in an emulator
    records   what was measured, and what is best
    job       all of it, in order
"""

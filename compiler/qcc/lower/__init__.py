"""Integer nodes → kernel calls → TIR → object code."""

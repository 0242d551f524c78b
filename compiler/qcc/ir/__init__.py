"""The intermediate representation: graph, printed form, verifier, evaluation, export."""

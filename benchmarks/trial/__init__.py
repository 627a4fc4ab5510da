"""The first trial of surrogates, repeated on our site: its problem and its families."""

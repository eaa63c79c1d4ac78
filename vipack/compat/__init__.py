"""Every private name of torch, Inductor, ATen and Pyro that vipack uses, each with a probe and what vipack does without it.

A name is private if its owner may change it from one release to the next without a word: it begins with an underscore, or its
module does. No other room uses one. See docs/decisions/020-private-names.md.
"""

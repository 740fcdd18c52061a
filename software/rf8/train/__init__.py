"""The recipe of the project's default model: ``python -m rf8.train --out DIR``.

`rf8.train.data` fetches the text, `rf8.train.loop` trains and measures perplexity.
"""

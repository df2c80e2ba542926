"""The demo: faces that the package draws itself, and the whole chain from those faces to a swapped clip.

`shape`, `texture`, `identities`, `scene` and `render` draw; `dataset` writes what they drew as ordinary face files and
clips; `figures` judges a swap against the right answer, which is known because a scene can be drawn as either identity.
"""

"""Swap the face in a picture with a whole-frame export and nothing of fsdeploy.

python swap.py a2b_frame.onnx picture.png landmarks.json swapped.png
"""

import json
import sys
from pathlib import Path

import cv2
import numpy as np
import onnxruntime

model, picture, landmarks_file, output = sys.argv[1:]
session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
frame = cv2.imread(picture)  # (H, W, 3) uint8, blue first
# (68, 2) pixels of the picture, from any detector
landmarks = np.array(json.loads(Path(landmarks_file).read_text()), np.float32)
(swapped,) = session.run(["swapped"], {"frame": frame, "landmarks": landmarks})
cv2.imwrite(output, swapped)

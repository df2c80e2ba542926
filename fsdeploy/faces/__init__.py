"""What a face is: PNG header, alignments file, landmarks, alignment maths, masks. Numpy and OpenCV only."""

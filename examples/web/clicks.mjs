// Landmarks without a detector: a frontal face laid on three clicks. Good enough to try a model, not for a product.

/** 68 points of an average frontal face, in a box of one unit: jaw, brows, nose, eyes, mouth. */
const AVERAGE = [
  [-0.080, 0.200], [-0.069, 0.385], [-0.036, 0.564], [0.018, 0.728], [0.090, 0.872], [0.178, 0.990],
  [0.278, 1.078], [0.387, 1.132], [0.500, 1.150], [0.613, 1.132], [0.722, 1.078], [0.822, 0.990],
  [0.910, 0.872], [0.982, 0.728], [1.036, 0.564], [1.069, 0.385], [1.080, 0.200], [0.010, 0.106],
  [0.085, 0.039], [0.191, 0.019], [0.301, 0.034], [0.403, 0.077], [0.597, 0.077], [0.699, 0.034],
  [0.809, 0.019], [0.915, 0.039], [0.990, 0.106], [0.500, 0.203], [0.500, 0.307], [0.500, 0.410],
  [0.500, 0.516], [0.377, 0.587], [0.436, 0.609], [0.500, 0.628], [0.564, 0.609], [0.623, 0.587],
  [0.132, 0.216], [0.197, 0.179], [0.276, 0.180], [0.344, 0.232], [0.271, 0.245], [0.193, 0.244],
  [0.656, 0.232], [0.724, 0.180], [0.803, 0.179], [0.868, 0.216], [0.807, 0.244], [0.729, 0.245],
  [0.264, 0.780], [0.351, 0.745], [0.439, 0.727], [0.500, 0.743], [0.561, 0.727], [0.649, 0.745],
  [0.736, 0.780], [0.652, 0.865], [0.567, 0.902], [0.500, 0.909], [0.433, 0.902], [0.348, 0.865],
  [0.300, 0.785], [0.438, 0.779], [0.500, 0.785], [0.562, 0.779], [0.700, 0.785], [0.563, 0.824],
  [0.500, 0.832], [0.437, 0.824],
];

/** 68 landmarks from the centres of the eye on the left, the eye on the right, and the mouth ([x, y] pixels each). */
export function landmarksFromClicks(clicks) {
  const anchors = [AVERAGE.slice(36, 42), AVERAGE.slice(42, 48), AVERAGE.slice(48, 60)].map(mean);
  // Least-squares similarity (rotation, scale, shift) from the three anchors to the three clicks.
  const from = mean(anchors);
  const to = mean(clicks);
  let size = 0, a = 0, b = 0;
  for (let i = 0; i < 3; i++) {
    const [x, y] = [anchors[i][0] - from[0], anchors[i][1] - from[1]];
    const [u, v] = [clicks[i][0] - to[0], clicks[i][1] - to[1]];
    size += x * x + y * y;
    a += x * u + y * v;
    b += x * v - y * u;
  }
  a /= size;
  b /= size;
  return AVERAGE.map(([x, y]) => [
    a * (x - from[0]) - b * (y - from[1]) + to[0],
    b * (x - from[0]) + a * (y - from[1]) + to[1],
  ]);
}

function mean(points) {
  const sum = points.reduce(([x, y], [u, v]) => [x + u, y + v], [0, 0]);
  return sum.map((value) => value / points.length);
}

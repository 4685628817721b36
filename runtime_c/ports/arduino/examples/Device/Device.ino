/*
 * Serves bfedge's protocol over USB. With this on the board, the computer's
 *
 *     bfedge verify <export> --port <port>
 *     bfedge profile <export> --port <port>
 *
 * prove that the board computes the reference's bits, and measure it.
 */
#include <bfedge_device.h>

void setup() {
  Serial.begin(115200);
  while (!Serial) {
  }
}

void loop() { bfedge_serve(Serial); }

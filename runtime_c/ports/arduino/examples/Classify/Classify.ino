/*
 * Classifies the images that the model file carries with it, the golden cases, and compares every bit of the result with
 * the expected one. To classify your own image, pass bfe_run its pixels: uint8_t [height][width][channels].
 */
#include <bfedge.h>
#include <bfedge_model.h>

static bfe_model model;
alignas(BFE_ALIGNMENT) static uint8_t workspace[BFEDGE_WORKSPACE_BYTES];
static float logits[BFEDGE_CLASSES];

static void halt(const char *what, bfe_status status) {
  Serial.print(what);
  Serial.print(": ");
  Serial.println(bfe_status_text(status));
  for (;;) {
    delay(1000);
  }
}

static void print_class(uint32_t index) {
  const char *text;
  size_t length;
  Serial.print("class ");
  Serial.print(index);
  if (bfe_label(&model, index, &text, &length) == BFE_OK) {
    Serial.print(" (");
    Serial.write(reinterpret_cast<const uint8_t *>(text), length);
    Serial.print(")");
  }
}

/* Returns whether the logits are the expected ones. */
static bool classify(uint32_t index) {
  const bfe_options options = {BFEDGE_TILE_TOKENS, nullptr, nullptr, 0, nullptr, nullptr};
  const uint8_t *image;
  const float *expected;
  bfe_golden(&model, index, &image, &expected);

  const unsigned long start = micros();
  const bfe_status status = bfe_run(&model, &options, workspace, sizeof workspace, image, logits);
  const unsigned long taken = micros() - start;
  if (status != BFE_OK) {
    halt("bfe_run", status);
  }

  uint32_t best = 0;
  for (uint32_t i = 1; i < BFEDGE_CLASSES; i++) {
    best = logits[i] > logits[best] ? i : best;
  }
  const bool equal = memcmp(logits, expected, sizeof logits) == 0;
  Serial.print("case ");
  Serial.print(index);
  Serial.print(": ");
  print_class(best);
  Serial.print(equal ? ", equal, " : ", DIFFERENT, ");
  Serial.print(taken);
  Serial.println(" us");
  return equal;
}

void setup() {
  Serial.begin(115200);
  while (!Serial) {
  }
  const bfe_status status = bfe_open(&model, bfedge_model, BFEDGE_MODEL_BYTES, nullptr);
  if (status != BFE_OK) {
    halt("bfe_open", status);
  }
}

void loop() {
  uint32_t equal = 0;
  for (uint32_t i = 0; i < model.golden_count; i++) {
    equal += classify(i) ? 1 : 0;
  }
  Serial.print(equal);
  Serial.print(" of ");
  Serial.print(model.golden_count);
  Serial.println(" golden cases equal");
  delay(10000);
}

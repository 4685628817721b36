/*
 * The device program on an Arduino: with it, `bfedge verify --port ...` and `bfedge profile --port ...` speak to the
 * board. See the example "Device".
 */
#ifndef BFEDGE_DEVICE_H
#define BFEDGE_DEVICE_H

#include <Arduino.h>

/* Answers the host over `line` until it says quit. */
void bfedge_serve(Stream &line);

#endif

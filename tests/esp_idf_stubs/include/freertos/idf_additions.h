#pragma once
#include "freertos/task.h"
uint8_t *pxTaskGetStackStart(TaskHandle_t xTask);

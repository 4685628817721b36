#pragma once
#include "sdkconfig.h"
#define TASK_EXTRA_STACK_SIZE 122880 /* a host's C library takes more than newlib; ESP-IDF has 0 or 512 here */
#define ESP_TASK_MAIN_STACK (CONFIG_ESP_MAIN_TASK_STACK_SIZE + TASK_EXTRA_STACK_SIZE)

#include "bfe_crc32.h"
#include "test.h"

int main(void) {
    const uint8_t digits[] = {'1', '2', '3', '4', '5', '6', '7', '8', '9'};
    CHECK(bfe_crc32(0, digits, sizeof digits) == 0xCBF43926);
    CHECK(bfe_crc32(0, digits, 0) == 0);
    for (size_t cut = 0; cut <= sizeof digits; cut++)
        CHECK(bfe_crc32(bfe_crc32(0, digits, cut), digits + cut, sizeof digits - cut) == 0xCBF43926);
    return test_result();
}

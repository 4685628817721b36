# What bfedge-device answers and how it exits. Expects DEVICE, WRITE (write_model) and WORK, a folder of its own.
file(REMOVE_RECURSE "${WORK}")
file(MAKE_DIRECTORY "${WORK}")

# expect(EXIT PATTERN argument...): what it prints matches the regular expression.
function(expect exit pattern)
  execute_process(COMMAND "${DEVICE}" ${ARGN} WORKING_DIRECTORY "${WORK}" INPUT_FILE "${WORK}/nothing"
    RESULT_VARIABLE result OUTPUT_VARIABLE out ERROR_VARIABLE out)
  if(NOT result EQUAL exit OR NOT out MATCHES "${pattern}")
    message(SEND_ERROR "bfedge-device ${ARGN}: exit ${result}\n${out}")
  endif()
endfunction()

function(write plan name)
  execute_process(COMMAND "${WRITE}" ${plan} "${WORK}/${name}" ${ARGN} RESULT_VARIABLE result)
  if(NOT result EQUAL 0)
    message(FATAL_ERROR "cannot write ${name}")
  endif()
endfunction()

file(WRITE "${WORK}/nothing" "")
write(1 good.bfe)
write(1 bare.bfe bare)
write(1 wrong.bfe wrong)
write(1 damaged.bfe damaged)
set(first "\"id\":1,\"type\":")
expect(0 "^{\"bfedge\":1,\"id\":0,\"type\":\"ready\",\"check\":\"e9c2de3c\"}\n$" good.bfe)
expect(0 "${first}\"hello\",.*\"golden\":2,\"tokens\":[0-9]+,\"classes\":10,\"input\":162}" good.bfe "1 hello")
foreach(tile 0 1 2 1000)
  expect(0 "${first}\"result\",\"case\":1,\"tile\":${tile},\"differing\":0,\"first\":null,.*\"logits\":null" good.bfe "1 golden 1 ${tile}")
  expect(0 "${first}\"profile\",\"case\":0,\"tile\":${tile},\"differing\":0,.*\"stated\":([0-9]+),\"used\":[0-9]+,\"intact\":true" good.bfe "1 profile 0 ${tile}")
endforeach()
expect(0 "\"bye\"" good.bfe "1 golden 0 0" "2 quit")
expect(1 "\"differing\":1,\"first\":1,.*\"logits\":\"[0-9a-f]+\"" wrong.bfe "1 golden 0 0")
expect(0 "\"differing\":0,\"first\":null," wrong.bfe "1 golden 1 0")
expect(1 "${first}\"error\",\"code\":\"bad-argument\"" bare.bfe "1 golden 0 0")
expect(1 "${first}\"error\",\"code\":\"no-model\",\"message\":\"corrupt\"" damaged.bfe "1 golden 0 0")
expect(0 "\"model\":null,\"refused\":{\"status\":\"corrupt\",\"rule\":6,\"offset\":20}" damaged.bfe "1 hello")
expect(1 "^error: missing.bfe: " missing.bfe)
expect(1 "^error: .: not a file" .)

# 6 x 9 pixels of 3 channels; 10 classes.
string(REPEAT "0a" 162 pixels)
expect(0 "${first}\"result\",\"case\":null,\"tile\":0,\"differing\":null,.*\"logits\":\"[0-9a-f]+\"" good.bfe "1 image 0 ${pixels}")
expect(1 "\"bad-argument\"" good.bfe "1 image 0 ${pixels}00")
expect(1 "\"bad-argument\"" good.bfe "1 image 0 0${pixels}")
expect(1 "\"bad-argument\"" good.bfe "1 image 0 zz")
expect(1 "\"bad-argument\"" good.bfe "1 image")

# A checksum is believed, one digit less or more is not; CRC-32 of "1 hello " is bfbbed43.
expect(0 "\"hello\"" good.bfe "1 hello *bfbbed43")
foreach(line "1 hello *bfbbed44" "1 hello *bfbbed4" "1 hello *bfbbed430" "1 hello *" "1 quit now" "1 golden 0 0 0"
    "0 hello" "x" "4294967296 hello" "hello" "-1 hello")
  expect(1 "\"error\",\"code\":\"garbled\"" good.bfe "${line}")
endforeach()
# A line that cannot be believed gets no other error, model or not, memory or not: whatever it seems to say may be damage.
string(ASCII 127 delete)
foreach(line "1 image 0 zz *00000000" "1 image x zz *00000000" "1 image *00000000" "1 image 0 ${pixels} 0"
    "1 golden 9 0 *00000000" "1 reboot *00000000" "1 hello\t" "1\thello" "1 hel\rlo" "1 quit\r " "1 hello ä"
    "1 image 0 ${delete}")
  foreach(model good.bfe damaged.bfe)
    expect(1 "\"error\",\"code\":\"garbled\"" ${model} "${line}")
  endforeach()
endforeach()
expect(1 "\"no-model\"" damaged.bfe "1 image 0 zz")
expect(1 "\"bad-argument\"" damaged.bfe "1 image x zz")
file(WRITE "${WORK}/lines" "1 hello\r\n\r\n2 hello\r\r\n3 quit\r\n")
execute_process(COMMAND "${DEVICE}" good.bfe WORKING_DIRECTORY "${WORK}" INPUT_FILE "${WORK}/lines"
  RESULT_VARIABLE result OUTPUT_VARIABLE out)
if(NOT result EQUAL 1 OR NOT out MATCHES "1,\"type\":\"hello\".*2,\"type\":\"error\",\"code\":\"garbled\".*3,\"type\":\"bye\"")
  message(SEND_ERROR "carriage returns: exit ${result}\n${out}")
endif()
foreach(line "1 golden 0" "1 golden" "1 golden 9 0" "1 golden 0 -1" "1 profile 0 4294967296" "1 golden x 0")
  expect(1 "${first}\"error\",\"code\":\"bad-argument\"" good.bfe "${line}")
endforeach()
expect(1 "\"unknown-command\"" good.bfe "1 reboot")
expect(0 "\"ready\".*\"bye\"" good.bfe "" "  " "1  quit ")

expect(1 "^usage: ")
expect(1 "^usage: " --what)
expect(0 "^usage: " --help)

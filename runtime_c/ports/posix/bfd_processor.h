/* The processor that the program finds itself on. */
#ifndef BFD_PROCESSOR_H
#define BFD_PROCESSOR_H

/* Its name, as PROTOCOL.md wants it; "unknown" if the system does not tell. */
const char *bfd_processor_name(void);

/* What the compiler was allowed to use and this processor lacks, in words; NULL if nothing is known to be missing. */
const char *bfd_missing_feature(void);

#endif

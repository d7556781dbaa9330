#pragma once
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>

/// Sets the name of the calling thread; the kernel keeps the first 15 bytes. Swift cannot import `pthread_setname_np`, which a feature
/// macro hides, nor call `prctl`, which is variadic.
static inline void sluice_name_thread(const char *name) {
    prctl(PR_SET_NAME, name, 0, 0, 0);
}

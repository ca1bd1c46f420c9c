"""What every test begins with, those of plugins too."""

import signal

# what is begun in the background ignores Ctrl-C, and so would all that tests interrupt
signal.signal(signal.SIGINT, signal.default_int_handler)

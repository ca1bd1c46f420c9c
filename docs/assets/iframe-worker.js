// A page opened from disk may start no worker. Here a hidden frame plays its part, which is enough for the search.
// The name is what the search looks for to know that it runs in a frame.
if (location.protocol === "file:") {
  window.IFrameWorker = class extends EventTarget {
    constructor(url) {
      super();
      const waiting = [];
      const frame = document.createElement("iframe");
      frame.hidden = true;
      frame.title = "search";
      this.postMessage = (data) => waiting.push(data);
      this.terminate = () => frame.remove();
      document.body.append(frame);
      const inside = frame.contentWindow;
      inside.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }));
      inside.importScripts = (...urls) =>
        urls.reduce((before, each) => before.then(() => load(inside, each)), Promise.resolve());
      load(inside, url).then(() => {
        this.postMessage = (data) => inside.dispatchEvent(new inside.MessageEvent("message", { data }));
        waiting.forEach((data) => this.postMessage(data));
      });
    }
  };
  window.Worker = window.IFrameWorker;

  function load(inside, url) {
    return new Promise((done, failed) => {
      const script = inside.document.createElement("script");
      script.src = new URL(url, location.href).href;
      script.onload = done;
      script.onerror = () => failed(new Error(`cannot load ${url}`));
      inside.document.head.append(script);
    });
  }
}

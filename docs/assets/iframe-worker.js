// A browser starts no worker from the file system: where the site is opened as files, the search's runs in a hidden frame.
// As of a worker, a message is a copy, and comes after what its sender does now.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    #frame = document.createElement("iframe");
    #ready;

    constructor(url) {
      super();
      this.onmessage = null;
      this.#frame.hidden = true;
      this.#frame.srcdoc = "<!doctype html>";
      this.#ready = new Promise((ready) => {
        this.#frame.onload = () => {
          const { contentWindow: inside, contentDocument: page } = this.#frame;
          inside.postMessage = (sent) => {
            const event = new MessageEvent("message", { data: structuredClone(sent) });
            setTimeout(() => this.#receive(event));
          };
          const script = page.createElement("script");
          script.src = new URL(url, location.href);
          script.onload = () => ready(inside);
          page.head.append(script);
        };
      });
      document.documentElement.append(this.#frame);
    }

    #receive(event) {
      this.dispatchEvent(event);
      this.onmessage?.(event);
    }

    postMessage(sent) {
      const data = structuredClone(sent);
      this.#ready.then((inside) => setTimeout(() => inside.dispatchEvent(new inside.MessageEvent("message", { data }))));
    }

    terminate() {
      this.#frame.remove();
    }
  };
}

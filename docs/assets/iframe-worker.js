/* The search of the theme runs in a worker, which browsers refuse to pages that are opened from a
 * folder. There this runs the same script in a hidden frame. */
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      this.onmessage = null;
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      document.body.appendChild(this.frame);
      const inside = this.frame.contentDocument;
      inside.open();
      inside.write(
        "<script>" +
          "postMessage = parent.postMessage.bind(parent);" +
          "importScripts = (...urls) => urls.reduce((before, url) => before.then(() =>" +
          "  new Promise((loaded) => {" +
          "    const script = document.createElement('script');" +
          "    script.src = url; script.onload = loaded; document.body.appendChild(script);" +
          "  })), Promise.resolve());" +
          "</" + "script><script src='" + url + "'></" + "script>"
      );
      inside.close();
      this.ready = new Promise((loaded) => {
        this.frame.contentWindow.addEventListener("load", loaded);
      });
      this.listener = (event) => {
        if (event.source !== this.frame.contentWindow && event.source !== window) return;
        if (event.data === null || typeof event.data !== "object" || !("type" in event.data)) return;
        const message = new MessageEvent("message", { data: event.data });
        this.dispatchEvent(message);
        if (this.onmessage) this.onmessage(message);
      };
      window.addEventListener("message", this.listener);
    }

    postMessage(data) {
      this.ready.then(() => this.frame.contentWindow.postMessage(data, "*"));
    }

    terminate() {
      window.removeEventListener("message", this.listener);
      this.frame.remove();
    }
  };
}

// The site's search runs in a worker, which browsers refuse to a page that is opened from the disk. There a hidden frame runs it instead.
// Zensical would otherwise load such a stand-in from a server of others (it looks for "iframe-worker" in `extra.polyfills`).
if (location.protocol === "file:") {
  window.Worker = class {
    constructor(url) {
      this.waiting = [];
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      document.body.append(this.frame);
      this.inside = this.frame.contentWindow;
      this.inside.postMessage = (data) => setTimeout(() => this.onmessage?.({ data: structuredClone(data) }));
      const script = this.inside.document.createElement("script");
      script.src = new URL(url, location.href).href;
      script.onerror = (event) => this.onerror?.(event);
      script.onload = () => {
        const waiting = this.waiting;
        this.waiting = null;
        waiting.forEach((data) => this.postMessage(data));
      };
      this.inside.document.body.append(script);
    }

    postMessage(data) {
      if (this.waiting) this.waiting.push(data);
      else this.inside.onmessage({ data: this.inside.structuredClone(data) });
    }

    terminate() {
      this.frame.remove();
    }
  };
}

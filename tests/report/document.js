// A document for tests in Node.js: elements with attributes, children, texts and events, without layout.

class Element {
  constructor(tag) { Object.assign(this, { tag, nodes: [], attributes: {}, listeners: {}, dataset: {}, style: { setProperty() {} }, clientWidth: 640 }); }
  append(...nodes) { this.nodes.push(...nodes); }
  replaceChildren(...nodes) { this.nodes = nodes; }
  setAttribute(name, value) {
    this.attributes[name] = value;
    if (name === 'id' || name === 'value') this[name] = value;
  }
  addEventListener(name, listener) { (this.listeners[name] ??= []).push(listener); }
  fire(name) { for (const listener of this.listeners[name]) listener({}); }
  get children() { return this.nodes.filter((node) => node instanceof Element); }
  get textContent() { return this.nodes.map((node) => (node instanceof Element ? node.textContent : String(node))).join(''); }
  set textContent(text) { this.nodes = [text]; }
  all(matches) { return [...(matches(this) ? [this] : []), ...this.children.flatMap((node) => node.all(matches))]; }
  tagged(tag) { return this.all((node) => node.tag === tag); }
  classed(name) { return this.all((node) => String(node.attributes.class || '').split(' ').includes(name)); }
  contains() { return false; }
  querySelectorAll() { return []; }
  querySelector(selector) { return this.all((node) => node.tag === selector)[0]; }
  focus() {}
  scrollIntoView() {}
}

const byId = {};
const document = {
  activeElement: null,
  getElementById: (id) => (id === 'data' ? { textContent: PAYLOAD } : (byId[id] ??= new Element(id))),
  createElement: (tag) => new Element(tag),
  createElementNS: (_, tag) => new Element(tag),
};
class ResizeObserver { observe() {} }
const requestAnimationFrame = (draw) => draw();

// For tests: a section of the page, and a choice in one of its lists.
const drawn = (id) => document.getElementById('main').children.find((node) => node.attributes['aria-labelledby'] === id);
function choose(section, label, value) {
  const list = section.classed('field').find((node) => node.children[0].textContent === label).children[1];
  list.value = String(value);
  list.fire('change');
}
const rowsOf = (table) => table.tagged('tbody')[0].children.map((row) => row.children.map((cell) => cell.textContent));
